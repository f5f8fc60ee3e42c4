// A stand-in for eclipd in the test's own process: speaks the control protocol, owns the shared
// memory, and, where asked, plays the GPU.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "ipc/active_set.h"
#include "ipc/board.h"
#include "ipc/control_socket.h"
#include "ipc/lease_ring.h"
#include "ipc/messages.h"
#include "ipc/plan_table.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"

namespace eclip::test {

/// What a fake daemon does unlike eclipd, and whether it is the GPU too.
struct FakeBehaviour {
  /// What to send instead of the usual reply; an empty vector: nothing.
  std::function<std::optional<std::vector<Message>>(const Message&)> answer;
  bool truncate_memory = false;  ///< memory objects arrive shorter than they claim
  bool run_packets = false;      ///< be the GPU, in program order
  bool ignore_barriers = false;  ///< ... but a broken one, which runs barriers at once
  bool can_schedule = true;      ///< false: an eclipd that does not know the message
  /// Changes what a schedule is answered with, and which descriptors go with it.
  std::function<void(Scheduled&, std::vector<int>&)> falsify_schedule;
};

/// Serves any number of connections, all with the same regions: tests use one worker at a time.
class FakeDaemon {
 public:
  using Behaviour = FakeBehaviour;

  explicit FakeDaemon(Behaviour behaviour = {});
  ~FakeDaemon();
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  [[nodiscard]] std::string path() const { return path_.string(); }
  [[nodiscard]] Board& board() { return board_->payload<Board>(); }
  [[nodiscard]] WorkerState& state() { return state_->payload<WorkerState>(); }
  [[nodiscard]] LeaseSlot& lease_slot(std::uint32_t slot) { return state().leases.at(slot); }
  [[nodiscard]] WorkerRequest& request() { return request_->payload<WorkerRequest>(); }
  [[nodiscard]] Region& state_region() { return *state_; }
  /// The ring of the index-th lease granted.
  [[nodiscard]] Region& ring_region(std::size_t index);
  [[nodiscard]] LeaseRing& ring(std::size_t index) {
    return ring_region(index).payload<LeaseRing>();
  }
  /// The ring of a scheduled lease: of a stream of the pool, or PlanTable::max_streams - 1.
  [[nodiscard]] LeaseRing& scheduled_ring(std::uint32_t stream) {
    return scheduled_rings_->payload<LeaseRings>().rings.at(stream);
  }
  /// Slot and id of a scheduled lease.
  static constexpr std::uint32_t scheduled_slot(std::uint32_t stream) { return 8 + stream; }
  static constexpr std::uint64_t scheduled_lease(std::uint32_t stream) { return 201 + stream; }
  [[nodiscard]] std::atomic<std::uint32_t>& active() {
    return active_set_->payload<ActiveSet>().workers;
  }
  /// Puts the worker's part of a plan in force, as the next epoch.
  void plan(const WorkerPlan& plan);
  /// eclipd's mapping of a memory object.
  [[nodiscard]] void* memory(std::uint32_t handle);

  /// The requests of a type so far.
  [[nodiscard]] std::vector<Message> requests(MessageType type);
  /// The image that the last code_load brought, and its seals.
  [[nodiscard]] std::vector<std::byte> code_image();

  /// A signal's use is forwarded, and completed at these ticks.
  void forward(SignalUse use);
  void cancel(SignalUse use);
  void complete(SignalUse use, std::uint64_t start = 0, std::uint64_t end = 0);
  void cut_off(Errc fault, std::uint64_t lease, std::uint64_t packet);
  /// Closes all connections at once, as the end of the process would.
  void die();

 private:
  void wake(std::uint32_t signal);
  void serve();
  void reply_to(int socket, const ReceivedMessage& received);
  void reply_with_fd(int socket, const Message& reply, int fd);
  void grant_lease(int socket, const Message& request);
  void schedule(int socket, const Message& request);
  void allocate(int socket, const Message& request);
  void remember_code(const ReceivedMessage& received);
  void run_packets();
  bool run_packet(const LeasePacket& packet);
  void run_dispatch(const LeaseDispatch& dispatch);
  [[nodiscard]] bool is_complete(SignalUse use);

  struct Ring {
    std::optional<Region> region;  ///< none: part of scheduled_rings_
    LeaseRingReader reader;
  };
  struct Memory {
    UniqueFd fd;
    boost::interprocess::mapped_region mapping;
  };

  Behaviour behaviour_;
  std::filesystem::path directory_;
  std::filesystem::path path_;
  std::optional<Region> board_;
  std::optional<Region> state_;
  std::optional<Region> request_;
  std::optional<Region> active_set_;
  std::optional<Region> scheduled_rings_;
  UniqueFd listener_;
  UniqueFd stop_;     // eventfd
  std::mutex mutex_;  // guards what follows
  std::list<Ring> rings_;
  std::map<std::uint32_t, Memory> memories_;
  std::vector<Message> requests_;
  std::vector<std::byte> code_;
  std::thread thread_;
};

}  // namespace eclip::test
