// How workers send requests to a shared device: by ECLIP's scheduler, or in ways to compare it
// with.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "daemon/model/queue_change.h"
#include "libeclip/scheduler.h"
#include "tools/eclip-bench/shared_device.h"

namespace eclip::bench {

/// What a worker has done in a run.
struct SendCounts {
  std::uint64_t scheduled = 0;  ///< kernels that the scheduler sent by the plan
  std::uint64_t bypassed = 0;   ///< and those that it left where they were
  std::uint64_t switches = 0;   ///< of streams
  std::uint64_t barriers = 0;   ///< barrier packets
  std::uint64_t ioctls = 0;     ///< changes of a queue's mask
};

/// Sends a worker's requests, one at a time.
class Sender {
 public:
  Sender() = default;
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;
  virtual ~Sender() = default;

  /// Begins a request; none is under way.
  virtual void start() = 0;
  /// Sends what may go now.
  virtual void go_on() = 0;
  [[nodiscard]] virtual std::uint64_t requests_done() const = 0;
  /// Requests in the worker's own queue.
  virtual void set_waiting(std::uint32_t) {}
  /// When go_on is to be called even if nothing of the worker's completes.
  [[nodiscard]] virtual std::optional<model::DeviceTime> due() const { return std::nullopt; }
  [[nodiscard]] virtual SendCounts counts() const = 0;
};

/// What eclipd would share with a worker.
struct SharedPlans {
  std::array<PlanTables, PlanTable::max_workers> tables;  ///< [worker]
  std::atomic<std::uint64_t> epoch{0};
  ActiveSet active{};
  /// Where workers do not see the same set (RunOptions::backlog): each its own.
  std::array<ActiveSet, PlanTable::max_workers> views{};
};

/// By the scheduler, which follows the worker's table of `plans`.
class ScheduledSender final : public Sender {
 public:
  ScheduledSender(SharedDevice& shared, std::size_t worker, const Kernels& kernels,
                  SharedPlans& plans, ActiveSet& active);
  void start() override;
  void go_on() override;
  [[nodiscard]] std::uint64_t requests_done() const override;
  void set_waiting(std::uint32_t requests) override { scheduler_.set_waiting_requests(requests); }
  [[nodiscard]] SendCounts counts() const override;

 private:
  void feed();

  const Kernels& kernels_;
  DeviceSink sink_;
  SchedulerReport report_{};
  Scheduler scheduler_;
  Program* program_;
  bool open_ = false;     // a request has begun and not ended
  std::size_t next_ = 0;  // kernel of it
};

/// Kernel by kernel, each on a stream of its own choice, a few ahead of the device. Where the
/// stream changes, a barrier-AND packet on the new one waits for the kernel before.
class KernelwiseSender final : public Sender {
 public:
  /// [kernel]: its stream.
  KernelwiseSender(SharedDevice& shared, std::size_t worker, std::span<const std::uint32_t> streams)
      : shared_(shared), worker_(worker), streams_(streams) {}
  void start() override;
  void go_on() override;
  [[nodiscard]] std::uint64_t requests_done() const override { return done_; }
  [[nodiscard]] SendCounts counts() const override { return counts_; }

 private:
  SharedDevice& shared_;
  std::size_t worker_;
  std::span<const std::uint32_t> streams_;
  bool running_ = false;
  std::size_t sent_ = 0;  // kernels of the request
  std::size_t completed_ = 0;
  std::array<SignalUse, PacketSink::signal_count> uses_{};  // of the last kernels
  std::uint64_t done_ = 0;
  SendCounts counts_;
};

/// Kernel by kernel on one queue whose CU mask is changed by an ioctl before each kernel that wants
/// another one. The queue is empty then, and the change stalls the whole device.
class MaskIoctlSender final : public Sender {
 public:
  /// `masks` are what streams are the indices of; `stalls` is the device's.
  MaskIoctlSender(SharedDevice& shared, std::size_t worker, std::span<const std::uint32_t> streams,
                  std::span<const CuMask> masks, model::QueueChangeStalls& stalls)
      : shared_(shared), worker_(worker), streams_(streams), masks_(masks), stalls_(stalls) {}
  void start() override;
  void go_on() override;
  [[nodiscard]] std::uint64_t requests_done() const override { return done_; }
  [[nodiscard]] std::optional<model::DeviceTime> due() const override { return ioctl_ends_; }
  [[nodiscard]] SendCounts counts() const override { return counts_; }

 private:
  void change_mask(std::uint32_t stream);

  SharedDevice& shared_;
  std::size_t worker_;
  std::span<const std::uint32_t> streams_;
  std::span<const CuMask> masks_;
  model::QueueChangeStalls& stalls_;
  std::optional<std::uint32_t> mask_;  // of the queue; none yet: the whole device
  std::optional<model::DeviceTime> ioctl_ends_;
  bool running_ = false;
  std::size_t sent_ = 0;
  std::size_t completed_ = 0;
  std::array<SignalUse, PacketSink::signal_count> uses_{};
  std::uint64_t done_ = 0;
  SendCounts counts_;
};

}  // namespace eclip::bench
