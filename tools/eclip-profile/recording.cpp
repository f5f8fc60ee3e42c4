#include "tools/eclip-profile/recording.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <map>
#include <optional>

#include "ipc/read_file.h"

namespace eclip::profile {
namespace {

/// The words of a line, taken from the front.
class Words {
 public:
  explicit Words(std::string_view line) : rest_(line) {}

  std::string_view next() {
    const std::size_t end = std::min(rest_.find(' '), rest_.size());
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return word;
  }
  /// Nullopt, and not whole() any more, when the next word is no such number.
  template <class Number>
  std::optional<Number> number() {
    const std::string_view word = next();
    Number value{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error == std::errc() && end == word.data() + word.size()) return value;
    bad_ = true;
    return std::nullopt;
  }
  /// The number, or 0.
  template <class Number>
  Number take() {
    return number<Number>().value_or(0);
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }
  /// All numbers so far were numbers.
  [[nodiscard]] bool good() const { return !bad_; }
  /// And nothing is left.
  [[nodiscard]] bool whole() const { return good() && rest_.empty(); }

 private:
  std::string_view rest_;
  bool bad_ = false;
};

class RecordingReader {
 public:
  /// False when the line is not of the format.
  bool line(std::string_view text) {
    Words words(text);
    const std::string_view kind = words.next();
    if (kind == "gpu") {
      recording_.gpu_cus = words.take<std::uint32_t>();
      recording_.gpu = words.rest();
      return words.good();
    }
    if (kind == "worker") {
      recording_.worker = words.rest();
      return true;
    }
    if (kind == "kernel") return kernel(words);
    if (kind == "lease") return lease(words);
    if (kind == "dispatch") return dispatch(words);
    if (kind == "dropped") {
      ++recording_.dropped;
      return true;
    }
    recording_.ended = kind == "end";
    return recording_.ended;
  }
  Recording take() { return std::move(recording_); }

 private:
  struct KnownKernel {
    std::uint32_t name;
    std::uint32_t registers;
  };

  bool kernel(Words& words) {
    const auto handle = words.take<std::uint32_t>();
    const std::string image(words.next());
    const auto offset = words.take<std::uint64_t>();
    const auto registers = words.take<std::uint32_t>();
    auto& names = recording_.trace.names;
    kernels_[handle] = {static_cast<std::uint32_t>(names.size()), registers};
    names.push_back(fmt::format("code {}+{:#x}", image, offset));
    return words.whole();
  }
  bool lease(Words& words) {
    const auto id = words.take<std::uint64_t>();
    words.take<std::uint32_t>();
    const auto cus = words.take<std::uint32_t>();
    leases_[id] = cus;
    recording_.lease_cus.push_back(cus);
    return words.whole();
  }
  bool dispatch(Words& words) {
    const bool known_lease = leases_.contains(words.take<std::uint64_t>());
    const auto kernel = kernels_.find(words.take<std::uint32_t>());
    std::array<std::uint64_t, 3> grid{};
    std::array<std::uint64_t, 3> workgroup{};
    for (auto& size : grid) size = words.take<std::uint32_t>();
    for (auto& size : workgroup) size = words.take<std::uint32_t>();
    const auto lds = words.take<std::uint32_t>();
    const auto start_ns = words.take<std::uint64_t>();
    const auto end_ns = words.take<std::uint64_t>();
    if (!words.whole() || !known_lease || kernel == kernels_.end() || end_ns < start_ns)
      return false;
    std::uint64_t workgroups = 1;
    for (std::size_t i = 0; i < 3; ++i) {
      if (grid[i] == 0 || workgroup[i] == 0) return false;
      workgroups *= (grid[i] + workgroup[i] - 1) / workgroup[i];
    }
    recording_.trace.kernels.push_back(
        {.name = kernel->second.name,
         .shape = {.workgroups = static_cast<std::uint32_t>(workgroups),
                   .workgroup_size =
                       static_cast<std::uint32_t>(workgroup[0] * workgroup[1] * workgroup[2]),
                   .registers_per_thread = kernel->second.registers,
                   .local_memory_bytes = lds},
         .start_us = static_cast<double>(start_ns) / 1000,
         .duration_us = static_cast<double>(end_ns - start_ns) / 1000});
    return true;
  }

  Recording recording_;
  std::map<std::uint32_t, KnownKernel> kernels_;
  std::map<std::uint64_t, std::uint32_t> leases_;
};

}  // namespace

Result<Recording> parse_recording(std::string_view text, const std::string& source) {
  RecordingReader reader;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos)
      return fail(Errc::malformed, fmt::format("{}:{}: the line is not complete; the disk may have "
                                               "been full: record again",
                                               source, number));
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (number == 1 ? line != "eclip-record 1" : !reader.line(line))
      return fail(Errc::malformed,
                  fmt::format("{}:{}: '{}' is not what this version of libeclip writes; record "
                              "again, with libeclip and eclip-profile of one version",
                              source, number, line.substr(0, 80)));
  }
  if (number == 0) return fail(Errc::malformed, source + ": is empty; record again");
  Recording recording = reader.take();
  recording.trace.source = source;
  if (!recording.lease_cus.empty()) recording.trace.cus = recording.lease_cus.front();
  return recording;
}

Result<Recording> load_recording(const std::filesystem::path& file) {
  const auto text = read_file(file);
  if (!text) return fail(text.error(), "recording " + file.string());
  return parse_recording(*text, file.string());
}

}  // namespace eclip::profile
