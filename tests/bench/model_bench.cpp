// Packets per second of the device model in virtual time, by kernels and by queues.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <vector>

#include "daemon/model/device.h"

namespace eclip::model {
namespace {

class NoHost final : public Host {
 public:
  std::int64_t signal_value(SignalAddress) override { return 0; }
  void packet_started(QueueId, const Packet&, DeviceTime) override {}
  void packet_completed(QueueId, const Packet&, DeviceTime, DeviceTime) override { ++completed; }
  std::int64_t completed = 0;
};

/// Memory stays with the process from one iteration to the next: what counts here is the model, not
/// what the system takes for fresh pages, on a virtual machine more than the model does.
const int keep_memory = mallopt(M_TRIM_THRESHOLD, 1 << 30) + mallopt(M_MMAP_THRESHOLD, 1 << 30);

/// An H100's figures; the benchmark reads no file.
GpuDescription gpu() {
  GpuDescription gpu;
  gpu.name = "bench";
  gpu.geometry = {.shader_engines = 12,
                  .cus_per_shader_engine = 11,
                  .threads_per_cu = 2048,
                  .workgroups_per_cu = 32,
                  .registers_per_cu = 65536,
                  .local_memory_per_cu = 233472};
  gpu.timing = {.launch_gap_us = 0.5,
                .barrier_us = 2.5,
                .memory_contention = 0.1,
                .full_speed_slack = 0.2,
                .full_slots_share = 0.5,
                .connections = 8,
                .connection_slice_us = 1e6};
  gpu.power = {.idle_watts = 100, .cu_active_watts = 3, .memory_watts = 100};
  return gpu;
}

/// Kernels as a request has them: of many sizes, most smaller than the GPU, some of several waves.
std::vector<std::shared_ptr<const Kernel>> request_kernels() {
  std::vector<std::shared_ptr<const Kernel>> kernels;
  for (std::uint32_t i = 0; i < 16; ++i) {
    const double cu_us = 40.0 * (1 + i % 5);
    const std::vector<TimePoint> points{
        {8, cu_us / 8 + 2}, {32, cu_us / 32 + 2}, {132, cu_us / 132 + 2}};
    const LaunchShape shape{.workgroups = 1U << (4 + i % 8), .workgroup_size = 256};
    kernels.push_back(std::make_shared<const Kernel>(*Kernel::create(shape, points)));
  }
  return kernels;
}

enum class Masks { overlapping, disjoint };

/// Overlapping: 32 CUs that two or more kinds of masks share. Disjoint: an equal part for each.
CuMask mask_of(std::int64_t index, std::int64_t queues, Masks masks) {
  const std::int64_t first = masks == Masks::overlapping ? index % 8 * 16 : index * 132 / queues;
  const std::int64_t end = masks == Masks::overlapping ? std::min<std::int64_t>(first + 32, 132)
                                                       : (index + 1) * 132 / queues;
  CuMask mask(132);
  for (std::int64_t cu = first; cu < end; ++cu) mask.insert(static_cast<std::uint32_t>(cu));
  return mask;
}

/// `packets` dispatches, dealt to `queues` queues.
void run(benchmark::State& state, std::int64_t packets, std::int64_t queues, Masks masks) {
  const auto kernels = request_kernels();
  std::int64_t completed = 0;
  for (auto _ : state) {
    NoHost host;
    Device device(gpu(), host);
    std::vector<QueueId> ids;
    for (std::int64_t i = 0; i < queues; ++i)
      ids.push_back(*device.create_queue(mask_of(i, queues, masks)));
    for (std::int64_t i = 0; i < packets; ++i)
      device.submit(ids[static_cast<std::size_t>(i % queues)],
                    {.barrier = true, .kernel = kernels[static_cast<std::size_t>(i % 16)]},
                    DeviceTime{});
    device.advance(std::chrono::hours(1));
    completed += host.completed;
  }
  if (completed != packets * state.iterations()) state.SkipWithError("not all packets completed");
  state.counters["packets/s"] =
      benchmark::Counter(static_cast<double>(completed), benchmark::Counter::kIsRate);
}

void ByKernels(benchmark::State& state) {
  run(state, state.range(0), 4, Masks::overlapping);
  state.SetComplexityN(state.range(0));
}
BENCHMARK(ByKernels)->RangeMultiplier(2)->Range(1 << 10, 1 << 16)->Complexity(benchmark::oN);

// The same number of packets for each number of queues: the complexity is that of one packet.
void ByOverlappingQueues(benchmark::State& state) {
  run(state, 1 << 14, state.range(0), Masks::overlapping);
  state.SetComplexityN(state.range(0));
}
BENCHMARK(ByOverlappingQueues)->RangeMultiplier(2)->Range(1, 64)->Complexity();

void ByDisjointQueues(benchmark::State& state) {
  run(state, 1 << 14, state.range(0), Masks::disjoint);
  state.SetComplexityN(state.range(0));
}
BENCHMARK(ByDisjointQueues)->RangeMultiplier(2)->Range(1, 128)->Complexity();

}  // namespace
}  // namespace eclip::model
