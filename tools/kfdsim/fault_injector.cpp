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

constexpr std::uint64_t queue_creations = 256;  // beside the ioctls' numbers

}  // namespace

FaultInjector::FaultInjector(std::vector<FaultSpec> faults, std::uint64_t seed)
    : faults_(std::move(faults)), seed_(seed), happened_(faults_.size()) {
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    if (const auto* stall = std::get_if<StallFault>(&faults_[i].fault)) {
      due_.push_back({{stall->at, stall->duration, false}, i});
    } else if (const auto* reset = std::get_if<ResetFault>(&faults_[i].fault)) {
      if (reset->at)
        due_.push_back({{*reset->at, reset->duration, true}, i});
      else
        counted_.push_back(i);
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
    if (fault != nullptr && fault->vram == vram) bytes = std::min(bytes, fault->limit_bytes);
  }
  return bytes;
}

void FaultInjector::allocation_failed(bool vram) {
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const auto* fault = std::get_if<MemoryLimit>(&faults_[i].fault);
    if (fault != nullptr && fault->vram == vram) count(i);
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

std::optional<FaultInjector::Timed> FaultInjector::packet_completed(std::uint64_t packets,
                                                                    DeviceTime now) {
  for (auto place = counted_.begin(); place != counted_.end(); ++place) {
    const auto& reset = std::get<ResetFault>(faults_[*place].fault);
    if (packets < *reset.after_packets) continue;
    count(*place);
    counted_.erase(place);
    return Timed{now, reset.duration, true};
  }
  return std::nullopt;
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
