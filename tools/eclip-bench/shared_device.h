// A GPU of the device model and what workers under ECLIP share of it: the pool's queues, and for
// each worker a queue without a mask and its signals. As eclipd does it, but in virtual time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/model/device.h"
#include "libeclip/scheduler.h"
#include "tools/eclip-bench/recorded_plan.h"
#include "tools/eclip-bench/trace.h"

namespace eclip::bench {

class SharedDevice final : public model::Host {
 public:
  static constexpr std::uint32_t stream_count = PlanTable::max_streams;
  static constexpr std::uint32_t unmasked = PacketSink::unmasked;

  /// At most seven pool streams and seven workers; [worker]: kernels of a request. `trace` may be
  /// null. Errc::invalid_argument when a mask does not fit the GPU.
  static Result<std::unique_ptr<SharedDevice>> create(const model::GpuDescription& gpu,
                                                      std::span<const CuMask> pool,
                                                      std::vector<Kernels> kernels, Trace* trace);

  [[nodiscard]] model::Device& device() { return device_; }
  [[nodiscard]] const model::Device& device() const { return device_; }
  [[nodiscard]] bool has_stream(std::uint32_t stream) const {
    return stream == unmasked || stream < pool_.size();
  }
  /// The worker's queue for that stream.
  [[nodiscard]] model::QueueId queue(std::size_t worker, std::uint32_t stream) const {
    return stream == unmasked ? workers_[worker].unmasked : pool_[stream];
  }

  /// A packet as workers write them; LeaseDispatch::kernel is the kernel's place in the request,
  /// from 1. Packets take effect now. A stream has room for a ring of them from each worker.
  PacketSink::Pushed push(std::size_t worker, std::uint32_t stream, const LeasePacket& packet);

  std::optional<SignalUse> begin_use(std::size_t worker, std::uint32_t signal);
  void cancel_use(std::size_t worker, SignalUse use);
  [[nodiscard]] bool is_complete(std::size_t worker, SignalUse use) const;
  [[nodiscard]] std::optional<PacketSink::Times> times(std::size_t worker, SignalUse use) const;

  /// Whether signals of the worker have completed since this was asked last.
  bool take_news(std::size_t worker);

  /// Packets of a worker for a stream so far, and those of them that are complete, which are the
  /// oldest.
  [[nodiscard]] std::uint64_t pushed(std::size_t worker, std::uint32_t stream) const {
    return workers_[worker].pushed[stream];
  }
  [[nodiscard]] std::uint64_t completed(std::size_t worker, std::uint32_t stream) const {
    return workers_[worker].completed[stream];
  }
  /// Kernels of a worker that have run.
  [[nodiscard]] std::uint64_t kernels_run(std::size_t worker) const {
    return workers_[worker].kernels_run;
  }
  /// Kernels that were not the next of their request in program order, or started before the one
  /// before them had ended: 0, or something is wrong.
  [[nodiscard]] std::uint64_t disorder() const { return disorder_; }

  std::int64_t signal_value(model::SignalAddress signal) override;
  void packet_started(model::QueueId, const model::Packet&, model::DeviceTime) override {}
  void packet_completed(model::QueueId queue, const model::Packet& packet, model::DeviceTime start,
                        model::DeviceTime end) override;

 private:
  struct Signal {
    std::uint32_t generation = 0;
    bool complete = true;
    PacketSink::Times times{};
  };
  struct Worker {
    Kernels kernels;
    model::QueueId unmasked{0};
    std::array<Signal, PacketSink::signal_count> signals;
    bool news = false;
    std::array<std::uint64_t, stream_count> pushed{};
    std::array<std::uint64_t, stream_count> completed{};
    std::uint64_t kernels_run = 0;
    model::DeviceTime last_end{};
  };

  SharedDevice(const model::GpuDescription& gpu, Trace* trace)
      : device_(gpu, *this), trace_(trace) {}
  [[nodiscard]] std::uint32_t stream_of(model::QueueId queue) const;

  model::Device device_;
  Trace* trace_;
  std::vector<model::QueueId> pool_;
  std::vector<Worker> workers_;
  std::uint64_t disorder_ = 0;
};

/// One worker's way to a shared device.
class DeviceSink final : public PacketSink {
 public:
  DeviceSink(SharedDevice& shared, std::size_t worker) : shared_(shared), worker_(worker) {}
  [[nodiscard]] bool has_stream(std::uint32_t stream) const override {
    return shared_.has_stream(stream);
  }
  Pushed push(std::uint32_t stream, const LeasePacket& packet) override {
    return shared_.push(worker_, stream, packet);
  }
  std::optional<SignalUse> begin_use(std::uint32_t signal) override {
    return shared_.begin_use(worker_, signal);
  }
  void cancel_use(SignalUse use) override { shared_.cancel_use(worker_, use); }
  [[nodiscard]] bool is_complete(SignalUse use) const override {
    return shared_.is_complete(worker_, use);
  }
  [[nodiscard]] std::optional<Times> times(SignalUse use) const override {
    return shared_.times(worker_, use);
  }

 private:
  SharedDevice& shared_;
  std::size_t worker_;
};

}  // namespace eclip::bench
