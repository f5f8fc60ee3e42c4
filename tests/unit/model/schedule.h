// A device under test with signals of its own, and a record of what it did.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/model/device.h"

namespace eclip::model {

inline DeviceTime us(double value) {
  return DeviceTime(std::llround(value * 1000));
}

/// 4 CUs, one workgroup slot for each thread, round figures: launch gap 2 us, barrier 3 us, 10 W
/// idle, 5 W for each busy CU.
inline GpuDescription small_gpu() {
  GpuDescription gpu;
  gpu.name = "small";
  gpu.geometry = {.shader_engines = 2,
                  .cus_per_shader_engine = 2,
                  .threads_per_cu = 1024,
                  .workgroups_per_cu = 16,
                  .registers_per_cu = 65536,
                  .local_memory_per_cu = 65536};
  gpu.timing = {.launch_gap_us = 2,
                .barrier_us = 3,
                .memory_contention = 0,
                .full_speed_slack = 0,
                .load_exponent = 1,
                .overlap_gain = 0,
                .full_slots_share = 1,
                .connections = 8,
                .connection_slice_us = 1000,
                .queue_change_p50_us = 0,
                .queue_change_p99_us = 0};
  gpu.power = {.idle_watts = 10, .cu_active_watts = 5, .memory_watts = 0};
  return gpu;
}

/// A kernel that uses every CU it gets: t(c) = work / c. Its workgroups fill `cus` CUs of small_gpu
/// exactly once.
inline std::shared_ptr<const Kernel> scaling_kernel(double cu_us, std::uint32_t cus = 4) {
  const std::vector<TimePoint> points{{1, cu_us}, {2, cu_us / 2}, {4, cu_us / 4}};
  const LaunchShape shape{.workgroups = cus, .workgroup_size = 1024};
  return std::make_shared<const Kernel>(*Kernel::create(shape, points));
}

/// A kernel of one small workgroup, whose time does not depend on its CUs.
inline std::shared_ptr<const Kernel> small_kernel(double time_us) {
  const std::vector<TimePoint> points{{1, time_us}};
  const LaunchShape shape{.workgroups = 1, .workgroup_size = 64};
  return std::make_shared<const Kernel>(*Kernel::create(shape, points));
}

inline Packet dispatch(std::uint64_t cookie, std::shared_ptr<const Kernel> kernel,
                       bool barrier = true) {
  return {.kind = PacketKind::dispatch,
          .barrier = barrier,
          .kernel = std::move(kernel),
          .dependencies = {},
          .cookie = cookie};
}

inline Packet barrier(PacketKind kind, std::uint64_t cookie,
                      std::array<SignalAddress, 5> dependencies) {
  return {.kind = kind,
          .barrier = true,
          .kernel = nullptr,
          .dependencies = dependencies,
          .cookie = cookie};
}

/// Records starts and ends by cookie; a completed packet decrements the signals given for it.
class Recorder : public Host {
 public:
  struct Span {
    DeviceTime start{-1};
    DeviceTime end{-1};
    friend bool operator==(const Span&, const Span&) = default;
  };

  std::int64_t signal_value(SignalAddress signal) override { return signals[signal]; }
  void packet_started(QueueId, const Packet& packet, DeviceTime at) override {
    spans[packet.cookie].start = at;
    log += "+" + std::to_string(packet.cookie) + "@" + std::to_string(at.count()) + " ";
  }
  void packet_completed(QueueId, const Packet& packet, DeviceTime start, DeviceTime end) override {
    // The start that packet_completed reports must be the one that packet_started reported.
    spans[packet.cookie] = {spans[packet.cookie].start == start ? start : DeviceTime(-2), end};
    log += "-" + std::to_string(packet.cookie) + "@" + std::to_string(end.count()) + " ";
    const auto signal = completion_signals.find(packet.cookie);
    if (signal != completion_signals.end()) --signals[signal->second];
  }

  std::map<SignalAddress, std::int64_t> signals;
  std::map<std::uint64_t, SignalAddress> completion_signals;  ///< by cookie
  std::map<std::uint64_t, Span> spans;                        ///< by cookie
  std::string log;
};

inline void PrintTo(const Recorder::Span& span, std::ostream* out) {
  *out << span.start.count() << " .. " << span.end.count() << " ns";
}

inline CuMask cus(const char* list) {
  return *CuMask::parse(list, 4);
}

/// From start to end, in microseconds.
inline Recorder::Span span(double start_us, double end_us) {
  return {us(start_us), us(end_us)};
}

}  // namespace eclip::model
