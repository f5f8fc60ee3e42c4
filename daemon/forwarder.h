// The forwarder: one thread that moves packets from the lease rings to the hardware queues.
//
// It owns all that the packets' way touches: ring positions, the workers' object tables, their
// signals' generations. The control thread changes these only by posting work to it, so that the
// way has no lock. It makes no system call; between bursts it may nap or sleep on a futex:
//
// - It naps, and the workers' packets need no system call, while packets come and for
//   Options::patience after the last.
// - Then it sleeps. A worker's next packet wakes it, a completion of a packet that still runs does
//   so through the driver (daemon/completion_interrupt.h).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "daemon/aql_ring.h"
#include "daemon/completion_interrupt.h"
#include "daemon/forwarded_stream.h"
#include "daemon/mailbox.h"
#include "daemon/packet_vetting.h"
#include "daemon/signal_pool.h"
#include "ipc/board.h"
#include "ipc/lease_ring.h"
#include "ipc/lease_slot.h"
#include "ipc/region.h"
#include "ipc/strong_id.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// What a lease has used so far; written by the forwarder, read by any thread.
struct LeaseUse {
  std::atomic<std::uint64_t> packets{0};    ///< forwarded
  std::atomic<std::uint64_t> device_ns{0};  ///< device time that they kept the stream busy
};

/// A lease as the forwarder sees it.
struct ForwardedLease {
  LeaseId id;
  StreamId stream;
  std::shared_ptr<const Region> region;  ///< holds the ring, and may hold others
  LeaseRingReader reader;
  LeaseSlot* slot = nullptr;   ///< the forwarder's own from open_lease() until it has ended
  std::uint32_t weight = 100;  ///< against other leases of its stream
  /// One of those that eclipd grants for plans: its packets may end groups, and on a stream that it
  /// shares, leases take turns (daemon/stream_turns.h).
  bool scheduled = false;
  LatencyClass latency_class = LatencyClass::throughput;  ///< of the worker's scheduler
  std::shared_ptr<LeaseUse> use = std::make_shared<LeaseUse>();
  /// Called on the forwarder's thread when the lease has ended and its packets have completed.
  std::function<void()> on_closed;
  std::uint64_t visible = 0;     ///< packets seen waiting at the start of this turn
  std::uint64_t pushed_end = 0;  ///< one past the number in the queue of its last packet; 0: none
  bool closing = false;          ///< Forwarder::begin_closing()
  std::uint64_t closing_at = 0;  ///< closes when so many packets have been taken
  LeaseEnd reason = LeaseEnd::none;
  /// For the watchdog: packets taken when it last looked at the one that is held back now.
  std::uint64_t held_at = 0;
  std::optional<std::chrono::steady_clock::time_point> held_since;
  bool said_held = false;
  /// Packets that the worker had written when the lease was revoked; it may have been about to
  /// write one more.
  std::optional<std::uint64_t> written_at_revocation;
};

/// What does not get on.
struct Stuck {
  Blame packet;  ///< the stream's oldest unfinished one; or its number is that in its lease's ring
  /// Set: it is held back in its ring, because it waits for this use of a signal, which no packet
  /// that went to the GPU completes.
  std::optional<SignalUse> waits_for;
  std::chrono::nanoseconds since{};  ///< host time
};

/// A worker as the forwarder sees it. The regions must outlive it.
struct ForwardedWorker {
  WorkerId id;
  WorkerState* state = nullptr;
  const WorkerRequest* request = nullptr;
  WorkerObjects objects;
  std::vector<std::unique_ptr<ForwardedLease>> leases;
  std::vector<std::uint32_t> outstanding;  ///< signals armed and not yet seen complete
  std::vector<bool> is_outstanding = std::vector<bool>(WorkerState::signal_count);
  std::uint32_t drains = 0;           ///< drains under way for it
  std::function<void()> on_detached;  ///< set: it is to go when drains is 0
  bool cut_off = false;
  bool any_visible = false;                 ///< of its leases, at the start of this turn
  bool any_closing = false;                 ///< one of its leases may be closing
  std::atomic<std::uint64_t> packets{0};    ///< forwarded; read by the control thread
  std::atomic<std::uint64_t> device_ns{0};  ///< as LeaseUse, of all its leases so far
};

class Forwarder {
 public:
  struct Options {
    std::chrono::nanoseconds spin;  ///< after the last progress, before it naps or sleeps
    std::chrono::nanoseconds nap;   ///< between looks while it waits for the GPU
    /// After the last packet, before it leaves it to the driver to tell of completions.
    std::chrono::nanoseconds patience = std::chrono::milliseconds(100);
    /// The longest sleep while packets run, should the driver tell of a completion late or never.
    std::chrono::nanoseconds longest_sleep = std::chrono::milliseconds(20);
  };
  /// Memory for signals of the forwarder's own, known to the GPU.
  struct OwnSignals {
    std::span<SignalSlot> slots;
    std::uint64_t gpu_address;
  };
  /// A worker was cut off because of its packet number `packet` of `lease`. On the forwarder's
  /// thread.
  using FaultReport =
      std::function<void(WorkerId worker, LeaseId lease, std::uint64_t packet, const Error& error)>;
  /// A lease has ended without the control thread having asked for it (LeaseEnd::dependency); it
  /// drains. On the forwarder's thread.
  using EndReport = std::function<void(WorkerId worker, LeaseId lease, LeaseEnd reason)>;

  /// A stream's oldest unfinished packet has been the same for too long; said once for each. Or a
  /// worker's next packet has been held back for so long. Without `stuck`: the stream goes on after
  /// all. On the forwarder's thread.
  using StuckReport = std::function<void(StreamId stream, const std::optional<Stuck>& stuck)>;

  Forwarder(Options options, const std::vector<AqlRing*>& streams, OwnSignals own_signals,
            Board& board, FaultReport report_fault, EndReport report_end);
  /// Stops the thread. Work still posted is dropped.
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  /// Has it report what does not get on for `limit` of device time. Before start().
  void watch(std::chrono::nanoseconds limit, StuckReport report);
  /// Starts the thread. Without it, tests call turn() themselves. Without an interrupt it naps as
  /// long as packets run.
  void start(std::optional<CompletionInterrupt> interrupt = {});
  /// Ends the thread; for good.
  void stop();

  // Any thread; carried out on the forwarder's, in order, before any packet that a worker writes
  // after it could know of them.
  void attach(std::shared_ptr<ForwardedWorker> worker);
  /// Stops taking the worker's packets, waits for those in the hardware queues, then calls
  /// `on_detached` on the forwarder's thread.
  void detach(std::shared_ptr<ForwardedWorker> worker, std::function<void()> on_detached);
  void open_lease(std::shared_ptr<ForwardedWorker> worker, std::unique_ptr<ForwardedLease> lease);
  /// Publishes the revocation: the worker finds it with its next packet. What is in the ring is
  /// forwarded as before until close_lease().
  void revoke_lease(std::shared_ptr<ForwardedWorker> worker, LeaseId lease, LeaseEnd reason,
                    std::uint64_t deadline_ns);
  /// Publishes when an active lease expires unless renewed, or the shorter grace of a revoked one.
  void set_deadline(std::shared_ptr<ForwardedWorker> worker, LeaseId lease,
                    std::uint64_t deadline_ns);
  /// Forwards what is in the ring now, or drops it (`drop`); then the lease has ended. A worker
  /// that has written more than one packet since a revocation is cut off. A second call with `drop`
  /// drops what the first was still to forward.
  void close_lease(std::shared_ptr<ForwardedWorker> worker, LeaseId lease, LeaseEnd reason,
                   bool drop);
  /// Changes the worker's object tables.
  void change_objects(std::shared_ptr<ForwardedWorker> worker,
                      std::function<void(WorkerObjects&)> change);
  /// Calls `on_quiet`, on the forwarder's thread, when all that the worker has on its streams now
  /// has completed.
  void quiesce(std::shared_ptr<ForwardedWorker> worker, std::function<void()> on_quiet);

  /// Packets forwarded to a stream so far.
  [[nodiscard]] std::uint64_t packets(StreamId stream) const {
    return streams_[stream.value].packets();
  }
  /// Kernels dispatched to all streams so far.
  [[nodiscard]] std::uint64_t dispatches() const {
    return dispatches_.load(std::memory_order_relaxed);
  }
  /// For each stream that has one, the oldest packet that has not completed. On the forwarder's
  /// thread, or any other after stop().
  [[nodiscard]] std::vector<Blame> unfinished() const;

  enum class Activity {
    progress,  ///< something was forwarded or completed
    waiting,   ///< nothing now, but packets run or are held back
    idle,      ///< nothing until a worker or the control thread asks
  };
  /// One look at everything. On the forwarder's thread only.
  Activity turn();
  /// The watchdog's look, after a turn(). On the forwarder's thread only.
  void look_for_stuck(std::chrono::steady_clock::time_point now);

 private:
  struct Drain {
    std::shared_ptr<ForwardedWorker> worker;
    StreamId stream;
    std::function<void()> on_drained;
    /// Set once its barrier is in the queue; none on a decoupled stream, see ForwardedStream.
    std::optional<std::uint32_t> signal;
    std::uint64_t barrier_end = 0;  ///< one past the barrier's number
    /// Set instead on a decoupled stream: the worker's packets before this number must complete.
    std::optional<std::uint64_t> end;
  };

  /// What the watchdog knows of a stream.
  struct Watched {
    std::optional<ForwardedStream::Progress> progress;
    std::chrono::steady_clock::time_point since{};
    bool said = false;
  };

  void run();
  void look_for_held(ForwardedWorker& worker, ForwardedLease& lease,
                     std::chrono::steady_clock::time_point now, std::chrono::nanoseconds limit);
  void sleep_until_woken(bool packets_run);
  void set_interrupt(const CompletionInterrupt* interrupt);
  /// What else there is on a stream that leases use by turns.
  struct Contention {
    bool others_wait = false;   ///< packets of other leases do
    bool stop_between = false;  ///< forward() stops where the turn may pass on
  };
  /// Takes packets of a lease. How many; a fault of the worker's counts as one.
  std::uint64_t forward(ForwardedWorker& worker, ForwardedLease& lease,
                        const Contention& contention);
  bool serve_by_turns(ForwardedStream& stream);
  /// Whether the next packet of a lease could go into the queue. One that is wrong can: it has its
  /// worker cut off.
  [[nodiscard]] bool can_go(const ForwardedStream::Member& member, bool others_wait);
  /// A barrier that waits, on a stream where others would wait with it.
  [[nodiscard]] bool would_block_others(const ForwardedLease& lease, const VettedPacket& vetted,
                                        bool others_wait) const;
  bool must_wait_for_barriers(ForwardedWorker& worker, const VettedPacket& vetted) const;
  static void arm(ForwardedWorker& worker, SignalUse use);
  void cut_off(ForwardedWorker& worker, const ForwardedLease& lease, const Error& error);
  static void begin_closing(ForwardedWorker& worker, ForwardedLease& lease, std::uint64_t at,
                            LeaseEnd reason);
  static void end_lease(ForwardedWorker& worker, ForwardedLease& lease, LeaseEnd reason);
  static void drop_packets(ForwardedWorker& worker, ForwardedLease& lease);
  bool close_finished_leases(const std::shared_ptr<ForwardedWorker>& worker);
  static bool collect_completions(ForwardedWorker& worker);
  static void wake_waiters(ForwardedWorker& worker, std::uint32_t signal);
  void drain(std::shared_ptr<ForwardedWorker> worker, StreamId stream,
             std::function<void()> on_drained);
  bool advance_drains();
  void submit(Drain& drain);
  [[nodiscard]] bool is_over(const Drain& drain) const;
  bool remove_detached();
  [[nodiscard]] bool waits_for_anything() const;
  [[nodiscard]] bool waits_for_signals_only() const;
  [[nodiscard]] bool anything_new() const;

  const Options options_;
  SignalPool own_signals_;
  std::deque<ForwardedStream> streams_;
  std::atomic<std::uint64_t> dispatches_{0};
  Board& board_;
  const FaultReport report_fault_;
  const EndReport report_end_;

  std::atomic<std::uint32_t> posted_{0};  // futex; raised with every post
  std::uint32_t handled_ = 0;
  Mailbox mailbox_;
  std::vector<std::shared_ptr<ForwardedWorker>> workers_;
  std::vector<Drain> drains_;
  std::vector<StreamTurns::Waiting> waiting_;  ///< serve_by_turns()'s, kept for its memory
  std::size_t detaching_ = 0;                  ///< workers with on_detached
  bool forwarded_ = false;                     ///< packets, since run() last looked at the clock
  std::chrono::nanoseconds watch_limit_{};     ///< device time; 0: no watchdog
  StuckReport report_stuck_;
  std::vector<Watched> watched_;  ///< by stream
  std::optional<CompletionInterrupt> interrupt_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace eclip::daemon
