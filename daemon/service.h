// What eclipd does for its clients: the pool, leases, workers and their memory, and reports about
// them. One thread (the control thread) calls it; sockets and messages are daemon/control_server.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "daemon/config.h"
#include "daemon/energy_ledger.h"
#include "daemon/forwarder.h"
#include "daemon/gpu_device.h"
#include "daemon/lease_table.h"
#include "daemon/mailbox.h"
#include "daemon/peer.h"
#include "daemon/plan_keeper.h"
#include "daemon/power_meter.h"
#include "daemon/probes.h"
#include "daemon/worker.h"
#include "ipc/active_set.h"
#include "ipc/messages.h"
#include "ipc/region.h"

namespace eclip::daemon {

class Service {
 public:
  /// Creates the pool on a GPU, once, under the guard if there is one, and starts the forwarder.
  /// Errors name what failed.
  static Result<std::unique_ptr<Service>> create(const Config& config,
                                                 std::unique_ptr<GpuDevice> device,
                                                 Probes probes = {}, PlanHistory history = {});
  /// Stops the forwarder, then gives queues and memory back.
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /// Of this eclipd's run; in every region's header.
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  /// Readable when run_posted() has something to do.
  [[nodiscard]] int wake_fd() const { return wake_fd_.get(); }
  /// Shows the workers that eclipd lives; every Board::heartbeat_period or more often.
  void beat();
  /// Finishes what the forwarder has reported: drained streams, detached workers, faults.
  /// Errc::device_failed when the GPU has failed, after the log has named the workers that were on
  /// it: this process cannot go on.
  Result<void> run_posted();
  /// When run_due() has something to do; nullopt: not before something else happens.
  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> next_deadline() const;
  /// Ends waits, offers, terms and grace periods that are over, and looks at the energy counter.
  void run_due();

  struct NewWorker {
    WorkerId id;
    std::vector<int> fds;  ///< board, worker state, worker request; stay the service's
  };
  /// Errc::quota_exceeded when there are workers.max_workers, or as many of this user as may be.
  Result<NewWorker> add_worker(const Peer& peer, const Hello& hello);
  /// Takes all from the worker; its streams are free again when their packets have completed.
  void remove_worker(WorkerId worker);

  struct NewLease {
    LeaseGranted reply;
    UniqueFd ring_fd;
  };
  struct NewSchedule {
    Scheduled reply;
    int active_set_fd;  ///< stays the service's
    UniqueFd rings_fd;
  };
  /// Leases on all streams, for a worker whose scheduler follows the plan. Errc::already_in_use,
  /// Errc::quota_exceeded; Errc::access_denied: its user may not have all CUs.
  Result<NewSchedule> schedule(WorkerId worker, const Schedule& request);
  /// A lease, or a place in the queue.
  Result<std::variant<NewLease, LeaseQueued>> acquire_lease(WorkerId worker,
                                                            const LeaseAcquire& request);
  /// The stream that a queued lease was offered. Errc::lease_ended: too late, or too early.
  Result<NewLease> claim_lease(WorkerId worker, LeaseId lease);
  Result<void> release_lease(WorkerId worker, LeaseId lease);
  /// Errc::access_denied unless `by` is root or the user of the lease's worker; Errc::not_found.
  Result<void> revoke_lease(const Peer& by, const LeaseRevoke& request);
  Result<Worker::Allocated> allocate_memory(WorkerId worker, const MemoryAllocate& request);
  /// `done` is called when the memory is free, that is, when no packet on the worker's streams can
  /// use it any more; not if this returns an error, nor if the worker goes before.
  Result<void> free_memory(WorkerId worker, std::uint32_t memory, std::function<void()> done);
  Result<std::uint32_t> load_code(WorkerId worker, std::uint64_t bytes, int fd);
  Result<std::uint32_t> register_kernel(WorkerId worker, const KernelRegister& request);

  [[nodiscard]] StatusReply status() const;
  [[nodiscard]] std::vector<StreamRecord> streams() const;
  [[nodiscard]] std::vector<ClientRecord> clients();
  [[nodiscard]] std::vector<LeaseRecord> leases() const;
  /// What a worker's scheduler reports. Errc::not_found.
  [[nodiscard]] Result<ScheduleRecord> schedule_of(WorkerId worker) const;
  // Errc::unsupported says why nothing is measured.
  [[nodiscard]] Result<std::vector<IoctlRecord>> ioctls() const;
  [[nodiscard]] Result<std::vector<KfdProcessRecord>> kfd_processes() const;
  [[nodiscard]] BudgetReply budget() const;
  /// Errc::unsupported and others: there is no guard.
  [[nodiscard]] Result<std::vector<DenialRecord>> denials() const;

  // Plans; Errc::unsupported when eclipd does not plan, and the keeper's errors.
  [[nodiscard]] Result<std::vector<PlanPart>> plan(std::uint64_t epoch);
  [[nodiscard]] Result<std::vector<PlanRecord>> plans() const;
  /// Errc::access_denied unless the peer is root or of eclipd's own uid. The epoch.
  Result<std::uint64_t> apply_plan(const Peer& peer, std::uint64_t bytes, int fd);
  Result<std::uint64_t> choose_plan(const Peer& peer, const PlanChoice& choice);

 private:
  using Clock = std::chrono::steady_clock;
  struct Client {
    std::unique_ptr<Worker> worker;
    pid_t pid;
    uid_t uid;
    std::string command;
    Clock::time_point since;
    std::uint32_t fault = 0;  // Errc
  };
  /// What belongs to a lease of the table beside its bookkeeping.
  struct HeldLease {
    WorkerId worker;
    pid_t pid;
    uid_t uid;
    std::uint32_t slot;
    LeaseSlot* words;        ///< of the worker's state region
    std::uint32_t renewals;  ///< LeaseRequest::renewals when last looked at
    std::shared_ptr<ForwardedWorker> forwarded;
    std::shared_ptr<LeaseUse> use;
  };

  Service(Config config, Probes probes);
  Result<void> create_pool();
  void create_unmasked_queues();
  void start_planning(PlanHistory history);
  Result<void> create_board(const std::vector<CuMask>& masks);
  void start_forwarder(CompletionInterrupt interrupt);
  Result<void> calibrate_clock();
  Result<Worker*> find(WorkerId worker);
  Result<LeaseTable::Terms> terms_of(const Client& client, const LeaseAcquire& request) const;
  /// Errc::access_denied when the worker was cut off.
  Result<Worker*> find_unbroken(WorkerId worker);
  /// Leases of a user (`uid`), or of a worker, that have not been released; those that it has as a
  /// scheduled worker count as one.
  [[nodiscard]] std::uint64_t leases_of_user(uid_t uid) const;
  [[nodiscard]] std::uint64_t leases_of_worker(WorkerId worker) const;
  /// Errc::quota_exceeded when the user has as many as it may.
  [[nodiscard]] Result<void> check_lease_count(const Client& client) const;
  Result<Region> create_ring() const;
  void hold_lease(LeaseId lease, const Client& client, std::uint32_t slot);
  Result<NewLease> open_lease(LeaseId lease, Region region);
  /// The worker is active no more.
  void clear_active(WorkerId worker);
  [[nodiscard]] ActiveSet& active_set() const { return active_set_region_->payload<ActiveSet>(); }
  [[nodiscard]] bool was_renewed(LeaseId lease);
  void lease_has_closed(LeaseId lease);
  void lease_has_ended(LeaseId lease, LeaseEnd reason);
  void cut_off(WorkerId worker, LeaseId lease, std::uint64_t packet, const Error& error);
  /// Carries out what the table has decided, and publishes it.
  void carry_out_changes();
  void carry_out(const LeaseTable::Change& change, HeldLease& held);
  void publish_streams();
  void account_energy();
  /// A process's compute queues on a GPU.
  struct LedgerEntry {
    pid_t pid = 0;
    std::uint32_t gpu_id = 0;  ///< the driver's
    std::uint32_t alive = 0;
    std::uint32_t masked = 0;
    std::uint32_t from_before = 0;  ///< listed by the driver, not seen: with a mask or without
  };
  [[nodiscard]] Result<std::vector<LedgerEntry>> all_queues() const;
  [[nodiscard]] BudgetTier budget_tier() const;
  /// Lets eclipd itself have so many CU-masked queues. Errc::budget_exceeded names who has them.
  Result<void> take_lease_on_budget(std::size_t streams);
  /// CU-masked queues on this GPU, of all processes but eclipd.
  [[nodiscard]] std::map<pid_t, std::uint32_t> unmanaged_masks();
  /// Says in the log which processes have got or lost such queues since it last looked.
  void audit_budget();
  /// Says what the guard has refused since.
  void audit_guard();
  void blame() const;
  /// "worker 3 'name' (pid 4711)"
  [[nodiscard]] std::string who_is(WorkerId worker) const;
  /// "stream 3", "queue 8 (no CU mask)"
  [[nodiscard]] std::string stream_name(StreamId stream) const;
  /// What the forwarder's watchdog has found; nullopt: the stream goes on.
  void say_stuck(StreamId stream, const std::optional<Stuck>& stuck);
  [[nodiscard]] Board& board() const { return board_region_->payload<Board>(); }

  const Config config_;
  const Clock::time_point started_ = Clock::now();
  const std::uint64_t epoch_;
  UniqueFd wake_fd_;
  Mailbox mailbox_;
  std::unique_ptr<GpuDevice> device_;  // outlives all that came from it
  std::optional<PowerMeter> power_;
  Result<bpf::BudgetGuard> guard_;          ///< the error: why there is none
  Result<bpf::KfdIoctlProbe> ioctl_probe_;  ///< the error: why there is none
  ClockSample first_sample_{};
  std::uint64_t queue_ioctls_at_start_ = 0;
  std::optional<Region> board_region_;
  std::optional<Region> active_set_region_;
  GpuMemory own_signals_;
  std::vector<std::unique_ptr<HardwareQueue>> queues_;  ///< the pool's, then those without a mask
  std::size_t pool_size_ = 0;
  std::optional<LeaseTable> table_;
  std::map<std::uint64_t, Client> clients_;                     // by WorkerId
  std::map<std::uint64_t, std::unique_ptr<Worker>> departing_;  // until the forwarder lets go
  std::map<std::uint64_t, HeldLease> leases_;                   // by LeaseId, as in the table
  EnergyLedger energy_;
  Clock::time_point energy_due_ = started_;
  Clock::time_point audit_due_ = started_;
  std::uint64_t said_unseen_ = 0;
  std::uint64_t said_unchecked_ = 0;
  bool said_unreadable_ = false;
  bool said_unaudited_ = false;
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint64_t>
      audited_denials_;                           ///< by the process's start and id
  std::map<pid_t, std::uint32_t> audited_masks_;  ///< as unmanaged_masks() when last looked at
  std::uint64_t last_worker_ = 0;
  std::uint64_t workers_cut_off_ = 0;
  struct StuckStream {
    Blame packet;
    Clock::time_point since;
  };
  std::map<StreamId, StuckStream> stuck_;
  std::optional<Error> failure_;               ///< of the GPU
  Result<std::unique_ptr<PlanKeeper>> plans_;  ///< the error: why eclipd does not plan
  Clock::time_point loads_due_ = started_;
  std::unique_ptr<Forwarder> forwarder_;  // first to go
};

}  // namespace eclip::daemon
