// What the opaque handles of the C ABI stand for.
#pragma once

#include <atomic>
#include <boost/interprocess/mapped_region.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "eclip/eclip.h"
#include "ipc/board.h"
#include "ipc/lease_ring.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"
#include "libeclip/control_channel.h"
#include "libeclip/recorder.h"
#include "libeclip/signal_table.h"

namespace eclip {

/// The regions that eclipd's welcome brings.
struct WelcomeRegions {
  Region board;
  Region state;
  Region request;
};

}  // namespace eclip

struct eclip_context {
  eclip_context(eclip::UniqueFd socket, std::chrono::milliseconds timeout);
  eclip_context(const eclip_context&) = delete;
  eclip_context& operator=(const eclip_context&) = delete;
  ~eclip_context();

  /// Says hello and maps the regions of the answer; once, before anything else.
  eclip::Result<void> introduce(const eclip::Hello& hello);

  [[nodiscard]] const eclip::Board& board() const {
    return regions->board.payload<const eclip::Board>();
  }
  [[nodiscard]] const eclip::WorkerState& state() const {
    return regions->state.payload<const eclip::WorkerState>();
  }
  [[nodiscard]] eclip::WorkerRequest& request() const {
    return regions->request.payload<eclip::WorkerRequest>();
  }

  /// Call after a store that eclipd's forwarder must notice: wakes it if it sleeps. A system call
  /// only in that case.
  void wake_forwarder() const;

  /// 0, -EPROTO when eclipd has cut this worker off, -ECONNRESET when it is gone. Loads and a clock
  /// that needs no system call; while eclipd's heartbeat is stale, which it is not while all is
  /// well, also a look at the socket once in Board::heartbeat_period.
  int check_alive();
  /// Whether check_alive would fail without another look; two loads.
  [[nodiscard]] bool is_known_lost() const {
    return control.gone() || state().fault.load(std::memory_order_relaxed) != 0;
  }

  /// The exclusive ownership of a lease passes to the context.
  eclip_lease* adopt(std::unique_ptr<eclip_lease> lease);
  /// Tells eclipd and frees the lease. False when eclipd did not say yes in time: it is gone, or
  /// frees the lease when the connection closes.
  bool release(eclip_lease* lease);

  eclip::ControlChannel control;
  std::optional<eclip::WelcomeRegions> regions;
  std::optional<eclip::SignalTable> signals;
  std::uint64_t worker = 0;  ///< WorkerId
  /// Null, as almost always, when nothing is recorded.
  std::unique_ptr<eclip::DispatchRecorder> recorder;

  /// When check_alive may look at the socket again, on the clock of Board::heartbeat_ns.
  std::atomic<std::uint64_t> next_look_ns{0};

  std::mutex objects_mutex;  // guards what follows
  std::unordered_map<std::uint32_t, boost::interprocess::mapped_region> host_mappings;
  std::vector<std::unique_ptr<eclip_lease>> leases;

  /// There is a scheduler, or a thread that makes or destroys one: what follows is that thread's.
  std::atomic<bool> has_scheduler{false};
  /// Signals of earlier schedulers whose packets still ran.
  std::vector<std::uint32_t> signals_in_use;
  std::unique_ptr<eclip_scheduler> scheduler;  // last: it uses leases and signals
};

struct eclip_lease {
  /// `ring` is in `holder`.
  eclip_lease(eclip_context& owner, std::shared_ptr<const eclip::Region> holder,
              eclip::LeaseRing& ring, const eclip::LeaseGranted& granted)
      : context(&owner),
        region(std::move(holder)),
        writer(ring),
        id(granted.lease),
        slot(granted.slot),
        stream(granted.stream),
        cu_count(granted.cu_count) {}

  /// Where the lease stands; one load.
  [[nodiscard]] eclip::LeaseState state() const {
    return static_cast<eclip::LeaseState>(
        context->state().leases[slot].state.load(std::memory_order_acquire));
  }

  /// Whether eclipd has taken the first `packets` packets of a lease that has ended.
  [[nodiscard]] bool was_accepted(std::uint64_t packets) const {
    return context->state().leases[slot].accepted.load(std::memory_order_relaxed) >= packets;
  }

  eclip_context* context;
  std::shared_ptr<const eclip::Region> region;
  eclip::LeaseRingWriter writer;
  std::uint64_t id;
  std::uint32_t slot;  // of WorkerState::leases
  std::uint32_t stream;
  std::uint32_t cu_count;
};
