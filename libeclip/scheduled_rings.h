// The lease rings of a worker that is scheduled, as its Scheduler sees them.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ipc/region.h"
#include "libeclip/context.h"
#include "libeclip/scheduler.h"

namespace eclip {

class ScheduledRings final : public PacketSink {
 public:
  /// What eclipd has granted. They belong to the context.
  struct Grant {
    std::optional<Region> active_set;  ///< none: the scheduler has one stream only
    std::array<eclip_lease*, PlanTable::max_streams> leases{};  ///< null: no such stream
  };
  /// Asks eclipd for the scheduled leases; with $ECLIP_CUS, for one ordinary lease, stream 0.
  /// 0, or as eclip_lease_acquire, reported.
  static int acquire(eclip_context& context, LatencyClass latency_class, Grant& grant);
  /// Gives the leases back; what eclipd does not take within a request's time goes with the
  /// connection.
  static void give_back(eclip_context& context, const Grant& grant);

  /// Reserves the scheduler's signals. The context must outlive this.
  ScheduledRings(eclip_context& context,
                 const std::array<eclip_lease*, PlanTable::max_streams>& leases);
  ScheduledRings(const ScheduledRings&) = delete;
  ScheduledRings& operator=(const ScheduledRings&) = delete;
  /// Gives the signals back; the leases are the context's.
  ~ScheduledRings() override;

  /// False: the connection has too few signals left.
  [[nodiscard]] bool has_signals() const { return signals_.size() == signal_count; }
  /// Why nothing more is done, reported for the calling thread: -EPROTO, -ECONNRESET, -ESTALE or
  /// -ECANCELED.
  int report_loss() const;
  /// "on stream 3", and for which packet: where the use's packet is, any thread.
  [[nodiscard]] std::string place_of(SignalUse use, std::uint32_t stream) const;

  [[nodiscard]] bool has_stream(std::uint32_t stream) const override {
    return stream < leases_.size() && leases_[stream] != nullptr;
  }
  Pushed push(std::uint32_t stream, const LeasePacket& packet) override;
  std::optional<SignalUse> begin_use(std::uint32_t signal) override;
  /// push() has done it.
  void cancel_use(SignalUse) override {}
  [[nodiscard]] bool is_complete(SignalUse use) const override {
    return context_->signals->is_complete(use);
  }
  [[nodiscard]] bool is_dropped(SignalUse use) const override {
    return context_->signals->is_cancelled(use);
  }
  [[nodiscard]] std::optional<Times> times(SignalUse use) const override;

 private:
  eclip_context* context_;
  std::array<eclip_lease*, PlanTable::max_streams> leases_;
  std::vector<std::uint32_t> signals_;
  /// Of each signal's last packet: the stream and, below, its number in the stream's lease.
  std::array<std::atomic<std::uint64_t>, WorkerState::signal_count> packets_{};
  /// Of each signal: the generation of its last use when this had it first.
  std::array<std::uint32_t, signal_count> before_{};
  bool dropped_ = false;  // a packet, with its lease; of whoever pushes
};

}  // namespace eclip
