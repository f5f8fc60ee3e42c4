#include "tools/kfdsim/fault_injector.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace eclip::kfdsim {
namespace {

/// The splitmix64 generator's output function: each bit depends on every bit of `value`.
std::uint64_t scrambled(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// What is counted beside the ioctls, by their numbers.
constexpr std::uint64_t queue_creations = 256;
constexpr std::uint64_t packet_completions = 257;
constexpr std::uint64_t first_allocations = 258;  // of system memory; the next: of VRAM

}  // namespace

FaultInjector::FaultInjector(std::vector<FaultSpec> faults, std::uint64_t seed)
    : faults_(std::move(faults)), seed_(seed), happened_(faults_.size()) {
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* stall = std::get_if<StallFault>(&faults_[i].fault);
    const auto* reset = std::get_if<ResetFault>(&faults_[i].fault);
    if (stall == nullptr && reset == nullptr) continue;
    const auto& at = stall != nullptr ? stall->trigger.at : reset->trigger.at;
    const DeviceTime duration = stall != nullptr ? stall->duration : reset->duration;
    if (at) {
      due_.push_back({{*at, duration, reset != nullptr}, i});
    } else {
      by_packets_.push_back(i);
    }
  }
  std::stable_sort(due_.begin(), due_.end(),
                   [](const Entry& a, const Entry& b) { return a.timed.at > b.timed.at; });
}

bool FaultInjector::chosen(std::size_t fault, double probability, std::uint64_t which,
                           std::uint64_t n) const {
  const std::uint64_t bits = scrambled(scrambled(scrambled(scrambled(seed_) + fault) + which) + n);
  constexpr unsigned mantissa = 53;
  return static_cast<double>(bits >> (64 - mantissa)) <
         probability * static_cast<double>(1ULL << mantissa);
}

FaultInjector::IoctlOutcome FaultInjector::ioctl(FaultHistory& process, std::uint8_t number) {
  IoctlOutcome outcome;
  const std::uint64_t n = process.calls.at(number)++;
  process.happened.resize(faults_.size());
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* fault = std::get_if<IoctlFault>(&faults_[i].fault);
    if (fault == nullptr || (fault->number && *fault->number != number)) continue;
    if (n < fault->after || (fault->count && process.happened[i] >= *fault->count)) continue;
    if (!chosen(i, fault->probability, number, n)) continue;
    ++process.happened[i];
    count(i);
    if (outcome.error == 0) outcome.error = fault->error;
    outcome.delay += fault->delay;
  }
  return outcome;
}

std::optional<FaultInjector::Hang> FaultInjector::queue_created(FaultHistory& process) {
  const std::uint64_t n = ++process.queues;
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* fault = std::get_if<HangFault>(&faults_[i].fault);
    if (fault == nullptr || (fault->queue && *fault->queue != n)) continue;
    if (chosen(i, fault->probability, queue_creations, n)) return Hang{fault->after, i};
  }
  return std::nullopt;
}

std::uint64_t FaultInjector::limited(std::uint64_t bytes, bool vram) const {
  for (const FaultSpec& spec : faults_) {
    const auto* fault = std::get_if<MemoryLimit>(&spec.fault);
    if (fault == nullptr || fault->vram != vram) continue;
    bytes = std::min(bytes, fault->limit_bytes.value_or(bytes));
  }
  return bytes;
}

bool FaultInjector::allocation_fails(FaultHistory& process, bool vram) {
  const std::size_t kind = vram ? 1 : 0;
  const std::uint64_t n = process.allocations.at(kind)++;
  bool fails = false;
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* fault = std::get_if<MemoryLimit>(&faults_[i].fault);
    if (fault == nullptr || fault->vram != vram) continue;
    if (!chosen(i, fault->probability, first_allocations + kind, n)) continue;
    count(i);
    fails = true;
  }
  return fails;
}

void FaultInjector::memory_ended(bool vram) {
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* fault = std::get_if<MemoryLimit>(&faults_[i].fault);
    if (fault != nullptr && fault->vram == vram && fault->limit_bytes) count(i);
  }
}

std::optional<DeviceTime> FaultInjector::next_due() const {
  if (due_.empty()) return std::nullopt;
  return due_.back().timed.at;
}

std::optional<FaultInjector::Timed> FaultInjector::take_due(DeviceTime now) {
  if (due_.empty() || due_.back().timed.at > now) return std::nullopt;
  const Entry entry = due_.back();
  due_.pop_back();
  count(entry.fault);
  return entry.timed;
}

bool FaultInjector::triggered(std::size_t fault, const Trigger& trigger, std::uint64_t process,
                              std::uint64_t packet) {
  if (process != trigger.process || packet < trigger.after) return false;
  if (happened_[fault] >= trigger.count) return false;
  if (!chosen(fault, trigger.probability, packet_completions, packet)) return false;
  count(fault);
  return true;
}

FaultInjector::PacketOutcome FaultInjector::packet_completed(std::uint64_t process,
                                                             std::uint64_t packet) {
  PacketOutcome outcome;
  for (const std::size_t i : by_packets_) {
    if (const auto* stall = std::get_if<StallFault>(&faults_[i].fault)) {
      if (!triggered(i, stall->trigger, process, packet)) continue;
      outcome.stall = std::max(outcome.stall.value_or(DeviceTime{}), stall->duration);
    } else {
      const auto& reset = std::get<ResetFault>(faults_[i].fault);
      if (!triggered(i, reset.trigger, process, packet)) continue;
      outcome.reset = std::max(outcome.reset.value_or(DeviceTime{}), reset.duration);
    }
  }
  return outcome;
}

std::string FaultInjector::summary() const {
  if (faults_.empty()) return {};
  std::string text = fmt::format("faults injected with seed {}:", seed_);
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    text += fmt::format("{} {} x {}", i == 0 ? "" : ";", happened_[i], faults_[i].text);
  }
  return text;
}

}  // namespace eclip::kfdsim
