#include "tools/kfdsim/fault_spec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include "tools/kfdsim/kfd_commands.h"

namespace eclip::kfdsim {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr std::array<Unit, 4> time_units{{{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}};
constexpr std::array<Unit, 4> size_units{
    {{"B", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024.0 * 1024 * 1024}}};
constexpr double most_ns = 9e18;                          // what a 64-bit number holds
constexpr double most_bytes = 1024.0 * 1024 * (1 << 30);  // what a GPU addresses

/// What has been read of a specification, and what goes wrong with it.
class Fields {
 public:
  /// "KIND,KEY=VALUE,..."; `known` are the keys that the kind has.
  static Result<Fields> split(std::string_view text, std::span<const std::string_view> known) {
    Fields fields;
    for (std::size_t at = text.find(','); at != std::string_view::npos;) {
      const std::size_t end = text.find(',', at + 1);
      const std::string_view part = text.substr(at + 1, end - at - 1);
      const std::size_t equals = part.find('=');
      const std::string_view key = part.substr(0, equals);
      bool is_known = false;
      for (const std::string_view name : known) is_known = is_known || name == key;
      if (equals == std::string_view::npos || !is_known) {
        return fail(Errc::invalid_argument, fmt::format("\"{}\" is not understood here; give {}",
                                                        part, fmt::join(known, "=..., ")) +
                                                "=...");
      }
      if (!fields.values_.emplace(key, part.substr(equals + 1)).second) {
        return fail(Errc::invalid_argument, fmt::format("{} is given twice; give it once", key));
      }
      at = end;
    }
    return fields;
  }

  [[nodiscard]] bool has(std::string_view key) const { return values_.contains(key); }
  [[nodiscard]] std::string_view text(std::string_view key) const { return values_.at(key); }

  Result<void> time(std::string_view key, DeviceTime& to) const {
    double ns = 0;
    auto read = quantity(key, time_units, most_ns, "a time such as 5ms or 1.5s", ns);
    if (read) to = DeviceTime(std::llround(ns));
    return read;
  }
  Result<void> size(std::string_view key, std::uint64_t& to) const {
    double bytes = 0;
    auto read = quantity(key, size_units, most_bytes,
                         "a size such as 64MiB or 1GiB, at most 1048576GiB", bytes);
    if (read) to = static_cast<std::uint64_t>(bytes);
    return read;
  }
  Result<void> number(std::string_view key, std::uint64_t least, std::uint64_t& to) const {
    if (!has(key)) return {};
    const std::string_view value = text(key);
    const auto [end, error] = std::from_chars(value.begin(), value.end(), to);
    if (error == std::errc() && end == value.end() && to >= least) return {};
    return wrong(key, fmt::format("a whole number from {}", least));
  }
  Result<void> number(std::string_view key, std::uint64_t least,
                      std::optional<std::uint64_t>& to) const {
    if (!has(key)) return {};
    return number(key, least, to.emplace());
  }
  Result<void> probability(std::string_view key, double& to) const {
    if (!has(key)) return {};
    const std::string_view value = text(key);
    const auto [end, error] = std::from_chars(value.begin(), value.end(), to);
    if (error == std::errc() && end == value.end() && to >= 0 && to <= 1) return {};
    return wrong(key, "a number from 0 to 1");
  }
  Result<void> error_number(std::string_view key, int& to) const {
    if (!has(key)) return {};
    constexpr int last_errno = 133;
    for (int candidate = 1; candidate <= last_errno; ++candidate) {
      const char* name = ::strerrorname_np(candidate);
      if (name == nullptr || text(key) != name) continue;
      to = candidate;
      return {};
    }
    return wrong(key, "the name of an errno, such as ENOMEM or EIO");
  }

 private:
  [[nodiscard]] tl::unexpected<Error> wrong(std::string_view key, std::string_view wanted) const {
    return fail(Errc::invalid_argument,
                fmt::format("{}={}: give {}", key, values_.at(key), wanted));
  }

  Result<void> quantity(std::string_view key, std::span<const Unit> units, double most,
                        std::string_view wanted, double& to) const {
    if (!has(key)) return {};
    const std::string_view value = text(key);
    const auto [end, error] = std::from_chars(value.begin(), value.end(), to);
    const std::string_view unit(end, static_cast<std::size_t>(value.end() - end));
    for (const Unit& candidate : units) {
      if (error != std::errc() || candidate.name != unit || !(to >= 0)) continue;
      to *= candidate.factor;
      if (to <= most) return {};
    }
    return wrong(key, wanted);
  }

  std::map<std::string_view, std::string_view> values_;
};

tl::unexpected<Error> incomplete(std::string_view what) {
  return fail(Errc::invalid_argument, std::string(what));
}

/// The first of several steps that failed.
Result<void> first_failure(std::initializer_list<Result<void>> steps) {
  for (const Result<void>& step : steps) {
    if (!step) return step;
  }
  return {};
}

using Fault = decltype(FaultSpec::fault);

Result<Fault> ioctl_fault(std::string_view name, std::string_view text) {
  static constexpr std::array<std::string_view, 5> keys{"error", "delay", "probability", "after",
                                                        "count"};
  IoctlFault fault;
  if (name != "any") {
    fault.number = kfd_command_number(name);
    if (!fault.number) {
      return fail(Errc::invalid_argument,
                  fmt::format("\"{}\" is no ioctl of the KFD; give any, or one of {}", name,
                              fmt::join(std::span(kfd_command_names).subspan(1), " ")));
    }
  }
  const auto fields = Fields::split(text, keys);
  if (!fields) return tl::unexpected(fields.error());
  auto read = first_failure(
      {fields->error_number("error", fault.error), fields->time("delay", fault.delay),
       fields->probability("probability", fault.probability),
       fields->number("after", 0, fault.after), fields->number("count", 1, fault.count)});
  if (!read) return tl::unexpected(read.error());
  if (fault.error == 0 && fault.delay.count() == 0) {
    return incomplete("an ioctl fault does something: give error=ERRNO, delay=TIME or both");
  }
  return fault;
}

Result<Fault> hang_fault(std::string_view text) {
  static constexpr std::array<std::string_view, 3> keys{"queue", "after", "probability"};
  const auto fields = Fields::split(text, keys);
  if (!fields) return tl::unexpected(fields.error());
  HangFault fault;
  auto read = first_failure({fields->number("queue", 1, fault.queue),
                             fields->number("after", 0, fault.after),
                             fields->probability("probability", fault.probability)});
  if (!read) return tl::unexpected(read.error());
  return fault;
}

/// The keys of a Trigger but for `count`.
Result<Trigger> trigger_of(const Fields& fields, std::string_view what) {
  Trigger trigger;
  const bool by_packets = fields.has("after") || fields.has("probability") ||
                          fields.has("process") || fields.has("count");
  if (fields.has("at") == (fields.has("after") || fields.has("probability")) ||
      (fields.has("at") && by_packets)) {
    return incomplete(fmt::format(
        "{} has one cause: give at=TIME, or after=PACKETS, probability=P or both (and process=N)",
        what));
  }
  DeviceTime at{};
  auto read = first_failure({fields.time("at", at), fields.number("process", 1, trigger.process),
                             fields.number("after", 1, trigger.after),
                             fields.probability("probability", trigger.probability)});
  if (!read) return tl::unexpected(read.error());
  if (fields.has("at")) trigger.at = at;
  return trigger;
}

Result<Fault> stall_fault(std::string_view text) {
  static constexpr std::array<std::string_view, 6> keys{"at",          "for",     "after",
                                                        "probability", "process", "count"};
  const auto fields = Fields::split(text, keys);
  if (!fields) return tl::unexpected(fields.error());
  StallFault fault;
  const auto trigger = trigger_of(*fields, "a stall");
  if (!trigger) return tl::unexpected(trigger.error());
  fault.trigger = *trigger;
  auto read = first_failure(
      {fields->time("for", fault.duration), fields->number("count", 1, fault.trigger.count)});
  if (!read) return tl::unexpected(read.error());
  if (fault.duration.count() == 0) return incomplete("a stall has a length: give for=TIME");
  return fault;
}

Result<Fault> memory_fault(bool vram, std::string_view text) {
  static constexpr std::array<std::string_view, 2> keys{"limit", "probability"};
  const auto fields = Fields::split(text, keys);
  if (!fields) return tl::unexpected(fields.error());
  MemoryLimit fault;
  fault.vram = vram;
  if (!fields->has("limit") && !fields->has("probability")) {
    return incomplete("memory ends somewhere: give limit=SIZE, probability=P or both");
  }
  std::uint64_t limit = 0;
  auto read = first_failure(
      {fields->size("limit", limit), fields->probability("probability", fault.probability)});
  if (!read) return tl::unexpected(read.error());
  if (fields->has("limit")) fault.limit_bytes = limit;
  return fault;
}

Result<Fault> reset_fault(std::string_view text) {
  static constexpr std::array<std::string_view, 5> keys{"at", "for", "after", "probability",
                                                        "process"};
  const auto fields = Fields::split(text, keys);
  if (!fields) return tl::unexpected(fields.error());
  ResetFault fault;
  const auto trigger = trigger_of(*fields, "a reset");
  if (!trigger) return tl::unexpected(trigger.error());
  fault.trigger = *trigger;
  if (auto read = fields->time("for", fault.duration); !read) return tl::unexpected(read.error());
  return fault;
}

Result<Fault> parse_kind(std::string_view text) {
  constexpr std::string_view ioctl = "ioctl:";
  const std::string_view kind = text.substr(0, text.find(','));
  if (kind.starts_with(ioctl)) return ioctl_fault(kind.substr(ioctl.size()), text);
  if (kind == "hang-queue") return hang_fault(text);
  if (kind == "stall-processor") return stall_fault(text);
  if (kind == "vram") return memory_fault(true, text);
  if (kind == "system-memory") return memory_fault(false, text);
  if (kind == "reset") return reset_fault(text);
  return fail(Errc::invalid_argument,
              fmt::format("\"{}\" is no fault; give ioctl:NAME, hang-queue, stall-processor, vram, "
                          "system-memory or reset",
                          kind));
}

}  // namespace

Result<FaultSpec> parse_fault_spec(std::string_view text) {
  auto fault = parse_kind(text);
  if (!fault) return fail(std::move(fault.error()), text);
  return FaultSpec{std::string(text), *fault};
}

}  // namespace eclip::kfdsim
