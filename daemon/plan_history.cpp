#include "daemon/plan_history.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "ipc/read_file.h"

namespace eclip::daemon {
namespace {

using nlohmann::json;

constexpr const char* schema = "eclip.plans/1";

json header_line(std::uint64_t generation) {
  return {{"schema", schema}, {"generation", generation}};
}
json plan_line(const PastPlan& plan) {
  return {{"plan",
           {{"epoch", plan.epoch},
            {"made_at", plan.made_at},
            {"reason", plan.reason},
            {"document", plan.document}}}};
}
json pin_line(std::optional<std::uint64_t> epoch) {
  return {{"pin", epoch ? json(*epoch) : json(nullptr)}};
}

std::string text_of(const json& line) {
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

/// All of it, or nothing: what was written of it is taken back.
Result<void> write_at(int fd, std::size_t offset, std::string_view text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const auto written =
        ::pwrite(fd, text.data() + done, text.size() - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = written < 0 ? errno : ENOSPC;
      if (::ftruncate(fd, static_cast<off_t>(offset)) != 0)
        spdlog::warn("take back a part of a plan: {}", std::generic_category().message(errno));
      return fail_errno(error, "write a plan");
    }
    done += static_cast<std::size_t>(written);
  }
  return {};
}

/// Whether the file has what the writing of a new one ends with.
bool was_rewritten_whole(const std::string& text) {
  const std::size_t pin = text.find("\n{\"pin\":");
  return pin != std::string::npos && text.find('\n', pin + 1) != std::string::npos;
}

/// The generation of a file with a whole first line; nullopt: none.
std::optional<std::uint64_t> generation_of(const std::string& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string::npos) return std::nullopt;
  const json line = json::parse(text.substr(0, end), nullptr, false);
  if (!line.is_object() || line.value("schema", json()) != schema) return std::nullopt;
  const json generation = line.value("generation", json());
  if (!generation.is_number_unsigned()) return std::nullopt;
  return generation.get<std::uint64_t>();
}

}  // namespace

Result<PlanHistory::File> PlanHistory::open_file(std::filesystem::path path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, "open " + path.string());
  return File{.path = std::move(path), .fd = std::move(fd)};
}

Result<PlanHistory> PlanHistory::open(const std::filesystem::path& directory,
                                      const std::string& name, std::size_t file_limit) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fail_errno(error.value(), "make " + directory.string());
  PlanHistory history;
  history.file_limit_ = file_limit;
  std::array<File, 2> files;
  std::array<std::string, 2> texts;
  std::array<std::optional<std::uint64_t>, 2> generations;
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto file = open_file(directory / (name + "." + std::to_string(i) + ".jsonl"));
    if (!file) return tl::unexpected(file.error());
    files[i] = std::move(*file);
    auto text = read_file(files[i].path);
    if (!text) return fail(text.error(), files[i].path.string());
    texts[i] = std::move(*text);
    generations[i] = generation_of(texts[i]);
    if (!generations[i] && texts[i].find('\n') != std::string::npos)
      return fail(Errc::malformed, files[i].path.string() +
                                       ":1: it does not begin as a history of "
                                       "plans; move it away");
  }
  // With two, eclipd ended while it wrote the newer one, or before the disk knew that the older one
  // is empty: the newer one counts if it is whole.
  const std::size_t newer =
      generations[1] && (!generations[0] || *generations[1] > *generations[0]) ? 1 : 0;
  history.in_use_ =
      generations[1 - newer] && !was_rewritten_whole(texts[newer]) ? 1 - newer : newer;
  history.generation_ = generations[history.in_use_].value_or(0);
  if (generations[history.in_use_])
    if (auto read = history.read(files[history.in_use_], texts[history.in_use_]); !read)
      return tl::unexpected(read.error());
  history.files_ = std::move(files);
  history.forget_old();
  if (auto written = history.rewrite(); !written) return tl::unexpected(written.error());
  return history;
}

Result<void> PlanHistory::read(const File& file, const std::string& text) {
  std::size_t number = 1;
  for (std::size_t begin = text.find('\n') + 1; begin < text.size();) {
    ++number;
    const std::size_t end = text.find('\n', begin);
    const std::string where = file.path.string() + ":" + std::to_string(number);
    if (end == std::string::npos) {
      spdlog::warn("{}: dropped, it was not written whole", where);
      return {};
    }
    const json line = json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                  text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (auto applied = apply(line); !applied)
      return fail(applied.error(), where + "; move the file away to begin anew");
    begin = end + 1;
  }
  return {};
}

Result<void> PlanHistory::apply(const json& line) {
  const auto malformed = [] { return fail(Errc::malformed, "no line of a history of plans"); };
  if (!line.is_object()) return malformed();
  if (const auto pin = line.find("pin"); pin != line.end()) {
    if (!pin->is_null() && !pin->is_number_unsigned()) return malformed();
    pinned_ = pin->is_null() ? std::nullopt : std::optional(pin->get<std::uint64_t>());
    return {};
  }
  const auto plan = line.find("plan");
  if (plan == line.end() || !plan->is_object()) return malformed();
  const auto epoch = plan->find("epoch");
  const auto made_at = plan->find("made_at");
  const auto reason = plan->find("reason");
  const auto document = plan->find("document");
  if (epoch == plan->end() || !epoch->is_number_unsigned() || made_at == plan->end() ||
      !made_at->is_number_integer() || reason == plan->end() || !reason->is_string() ||
      document == plan->end() || !document->is_object())
    return malformed();
  const auto number = epoch->get<std::uint64_t>();
  if (number + 1 < next_epoch_) return malformed();
  keep({.epoch = number,
        .made_at = made_at->get<std::int64_t>(),
        .reason = reason->get<std::string>(),
        .document = *document});
  return {};
}

const PastPlan* PlanHistory::find(std::uint64_t epoch) const {
  const auto found = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const PastPlan& plan) { return plan.epoch == epoch; });
  return found == plans_.end() ? nullptr : &*found;
}

Result<void> PlanHistory::add(PastPlan plan) {
  keep(std::move(plan));
  forget_old();
  return append(plan_line(plans_.back()));
}

Result<void> PlanHistory::pin(std::optional<std::uint64_t> epoch) {
  pinned_ = epoch;
  forget_old();
  return append(pin_line(epoch));
}

void PlanHistory::keep(PastPlan plan) {
  if (!plans_.empty() && plans_.back().epoch == plan.epoch) plans_.pop_back();
  next_epoch_ = plan.epoch + 1;
  plans_.push_back(std::move(plan));
}

void PlanHistory::forget_old() {
  for (auto plan = plans_.begin(); plans_.size() > kept && plan != plans_.end();)
    plan = plan->epoch == pinned_ ? plan + 1 : plans_.erase(plan);
}

Result<void> PlanHistory::append(const json& line) {
  if (!files_) return {};
  const std::string text = text_of(line);
  if (bytes_ + text.size() > std::max(file_limit_, 2 * rewritten_bytes_)) return rewrite();
  if (auto written = write_at((*files_)[in_use_].fd.get(), bytes_, text); !written)
    return fail(written.error(), (*files_)[in_use_].path.string());
  bytes_ += text.size();
  return {};
}

Result<void> PlanHistory::rewrite() {
  std::string text = text_of(header_line(generation_ + 1));
  for (const PastPlan& plan : plans_) text += text_of(plan_line(plan));
  text += text_of(pin_line(pinned_));
  const std::size_t other = 1 - in_use_;
  const int fd = (*files_)[other].fd.get();
  const auto failed = [&](int error) {
    return fail_errno(error, "rewrite " + (*files_)[other].path.string());
  };
  if (::ftruncate(fd, 0) != 0) return failed(errno);
  if (auto written = write_at(fd, 0, text); !written)
    return fail(written.error(), (*files_)[other].path.string());
  // On the disk before the old one goes.
  if (::fdatasync(fd) != 0) return failed(errno);
  if (::ftruncate((*files_)[in_use_].fd.get(), 0) != 0) return failed(errno);
  ++generation_;
  in_use_ = other;
  bytes_ = text.size();
  rewritten_bytes_ = bytes_;
  return {};
}

}  // namespace eclip::daemon
