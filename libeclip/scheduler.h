// The runtime scheduler: kernels in program order in, packets for streams out. It knows no lease,
// socket or clock: libeclip gives it lease rings (libeclip/scheduled_rings.h), eclip-bench and
// tests a device model in virtual time.
//
// A worker has one Scheduler and, in it, one or more Programs (HIP would say streams): each is a
// sequence of operations that take effect in order. Operations wait in the program until they may
// go; advance() moves them on.
//
// - A program runs requests, a request is cut into the groups of the plan. Where a group begins,
//   and only there, its stream is chosen: the active set is read, and the plan's row for it.
// - At most two groups of a program are under way: one that runs and one behind it, so that the
//   GPU need not wait for the host, yet a worker leaves a stream soon after others have come.
// - On the same stream order is kept by the barrier bit. For another stream, the last kernel of the
//   group before has a completion signal, and a barrier-AND packet that waits for it goes first on
//   the new stream. Where the change was not foreseen (that kernel had no signal), a barrier packet
//   with a signal goes on the old stream before.
// - A packet is pushed only after all that it waits for has been pushed. So what waits for what
//   follows the order of pushes, and cannot be a cycle.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "ipc/active_set.h"
#include "ipc/launch_shapes.h"
#include "ipc/lease_ring.h"
#include "ipc/plan_table.h"
#include "ipc/worker_regions.h"

namespace eclip {

/// Where a scheduler's packets go. Called by one thread at a time, but for is_complete.
class PacketSink {
 public:
  /// Streams 0 .. unmasked - 1 are the pool's, `unmasked` is the queue without a mask.
  static constexpr std::uint32_t unmasked = PlanTable::max_streams - 1;
  /// The scheduler has signals 0 .. signal_count - 1 of its own, each for one use after the other.
  static constexpr std::uint32_t signal_count = 128;

  enum class Pushed : std::uint8_t {
    yes,
    full,  ///< not now: room comes when packets have completed
    lost,  ///< never: eclipd or a lease has ended
  };
  /// Of a packet on the GPU, device time.
  struct Times {
    std::uint64_t start_ns;
    std::uint64_t end_ns;
  };

  PacketSink() = default;
  PacketSink(const PacketSink&) = delete;
  PacketSink& operator=(const PacketSink&) = delete;
  virtual ~PacketSink() = default;

  [[nodiscard]] virtual bool has_stream(std::uint32_t stream) const = 0;
  virtual Pushed push(std::uint32_t stream, const LeasePacket& packet) = 0;
  /// A new use of a signal, for the next packet; nullopt while its last use has not completed.
  virtual std::optional<SignalUse> begin_use(std::uint32_t signal) = 0;
  /// The packet of the use begun last was not pushed.
  virtual void cancel_use(SignalUse use) = 0;
  /// Whether the use's packet has completed; true for generation 0. Any thread.
  [[nodiscard]] virtual bool is_complete(SignalUse use) const = 0;
  /// Whether the packet of a completed use was dropped instead of run.
  [[nodiscard]] virtual bool is_dropped(SignalUse) const { return false; }
  /// When the completed packet ran; nullopt when its signal has been used again.
  [[nodiscard]] virtual std::optional<Times> times(SignalUse use) const = 0;
};

/// What putting an operation into a program returned.
enum class Enqueued : std::uint8_t {
  yes,
  full,     ///< too many operations or requests have not gone: wait for one
  lost,     ///< PacketSink::Pushed::lost: nothing more will be done
  invalid,  ///< a request within a request, an end without a beginning, a pin within a pin, a wait
            ///< for an event that there is not or for more than a program has room for
};

/// One recording of an event: when all that was in the program before has completed.
struct EventUse {
  std::uint32_t event;
  std::uint32_t recording;  ///< from 1; 0: never recorded, nothing to wait for
};

/// An ordered sequence of operations; Scheduler::create_program makes it. One thread at a time puts
/// operations in.
class Program {
 public:
  static constexpr std::uint32_t capacity = 1024;     ///< operations that have not gone
  static constexpr std::uint32_t most_requests = 16;  ///< begun and not complete
  static constexpr std::uint32_t most_under_way = 2;  ///< groups: one that runs, one of look-ahead
  static constexpr std::uint32_t most_dependencies = 32;

 private:
  friend class Scheduler;

  enum class OperationKind : std::uint8_t { begin, end, dispatch, wait, record, call, pin, unpin };
  struct Call {
    void (*function)(void*);
    void* argument;
  };
  struct Operation {
    OperationKind kind{};
    /// pin: why; dispatch: why it stays on its stream; count: it does not.
    BypassReason reason = BypassReason::count;
    std::uint32_t event_count = 0;
    union {
      std::uint64_t deadline_ns = 0;  ///< begin
      LeaseDispatch dispatch;
      std::array<EventUse, 5> events;  ///< wait, record
      Call call;
    };
  };
  struct Dependency {
    SignalUse use;
    std::uint32_t stream;  ///< where its packet was pushed
  };
  /// Begun and not complete.
  struct Request {
    std::uint64_t deadline_ns = 0;
    bool ended = false;  ///< its last packet was pushed
    SignalUse last{0, 0};
  };
  /// Pushed whole and not complete.
  struct Group {
    SignalUse last{0, 0};
    std::uint64_t epoch = 0;
    std::uint32_t group = 0;
    float predicted_us = 0;  ///< 0: do not compare
    /// Its predecessor, whose end is its beginning: not complete when this was pushed.
    SignalUse before{0, 0};
    std::uint64_t before_end_ns = 0;
  };
  enum class CallState : std::uint8_t { none, ready, running, done };

  explicit Program(std::uint32_t first_stream)
      : operations(std::make_unique<std::array<Operation, capacity>>()), stream(first_stream) {}

  // The thread that puts operations in.
  std::unique_ptr<std::array<Operation, capacity>> operations;
  alignas(64) std::atomic<std::uint64_t> enqueued{0};
  bool request_is_open = false;
  bool pin_is_open = false;
  std::uint64_t begun = 0;

  // Whoever carries out Scheduler::advance; the atomics can be read by all.
  alignas(64) std::atomic<std::uint64_t> gone{0};
  std::atomic<std::uint64_t> requests_done{0};
  std::atomic<std::uint64_t> awaited{0};  // a SignalUse
  std::atomic<std::uint32_t> awaited_stream{0};
  std::atomic<CallState> call_state{CallState::none};

  std::uint32_t stream;
  bool outstanding = false;  // packets on `stream` that are not known to have completed
  SignalUse last{0, 0};      // completion signal of the last of them; generation 0: it has none
  bool last_ended_group = false;
  SignalUse mark{0, 0};                                    // the last completion signal on it
  std::uint32_t unmarked = 0;                              // packets since then
  std::array<Dependency, most_dependencies> dependencies;  // of the next packet
  std::uint32_t dependency_count = 0;

  bool in_request = false;
  bool known = false;        // the request is the plan's, as far as has been seen
  std::uint32_t kernel = 0;  // the next one, of the request
  std::uint32_t active = 0;  // set of workers for which the stream was chosen last
  std::uint64_t epoch = 0;   // of the plan, then
  std::optional<BypassReason> pin;
  std::optional<std::uint32_t> uniform_stream;

  bool in_group = false;
  std::uint32_t group_end = 0;                // kernel
  BypassReason bypass = BypassReason::count;  // of the group's kernels
  std::uint32_t expected_shapes = 0;          // 0: not known
  LaunchShapes shapes;
  Group group;

  std::array<Group, most_under_way> under_way;  // oldest first
  std::uint32_t under_way_count = 0;
  std::array<Request, most_requests> requests;
  std::uint64_t first_request = 0;  // not complete; mod most_requests
  std::uint64_t end_request = 0;
};

class Scheduler {
 public:
  /// `active_set` may be null: nobody else is active. All must outlive the scheduler.
  Scheduler(PacketSink& sink, PlanReader plan, SchedulerReport& report,
            std::atomic<std::uint32_t>* active_set);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  /// The worker is idle then; what was pushed still runs.
  ~Scheduler();

  static constexpr std::uint32_t most_programs = 16;
  static constexpr std::uint32_t most_events = 1024;

  /// A program lives as long as the scheduler; null: there are most_programs.
  Program* create_program();
  /// An event lives as long as the scheduler; nullopt: there are most_events.
  std::optional<std::uint32_t> create_event();

  // Operations. Each takes effect when all before it in its program have, and calls advance().

  /// Kernels until the end are a request: in their order, the kernels that the plan knows. The
  /// worker is active until all its requests are complete. deadline_ns: when it should be, on
  /// CLOCK_MONOTONIC; 0: whenever.
  Enqueued begin_request(Program& program, std::uint64_t deadline_ns = 0);
  Enqueued end_request(Program& program);
  /// `stays`: the kernel may not be moved between streams (cooperative, persistent, unknown).
  Enqueued dispatch(Program& program, const LeaseDispatch& kernel,
                    BypassReason stays = BypassReason::count);
  /// `use`, if it is returned, names this recording. It waits for those before it of the same
  /// event, also by other programs. One thread at a time records an event.
  Enqueued record(Program& program, std::uint32_t event, EventUse* use = nullptr);
  /// What follows waits for these recordings, of this scheduler.
  Enqueued wait(Program& program, std::span<const EventUse> events);
  /// Calls the function when all before has completed; what follows waits until it has returned.
  /// It runs in a thread that calls advance(), and must not wait for this scheduler.
  Enqueued call(Program& program, void (*function)(void*), void* argument);
  /// Kernels until unpin stay on one stream: that on which the program is; with
  /// BypassReason::uniform the same one each time.
  Enqueued pin(Program& program, BypassReason reason);
  Enqueued unpin(Program& program);

  /// Requests that wait in the worker's own queue: with them it is active, too.
  void set_waiting_requests(std::uint32_t count);

  /// Pushes what may go, notices what has completed, calls functions that are due. Any thread; one
  /// at a time does it, others return at once, and theirs is done by that one. No lock, no system
  /// call, no allocation.
  void advance();

  /// Requests of the program that have completed, in their order.
  [[nodiscard]] std::uint64_t requests_done(const Program& program) const {
    return program.requests_done.load(std::memory_order_acquire);
  }
  /// Requests begun so far: the thread that puts operations in.
  [[nodiscard]] std::uint64_t requests_begun(const Program& program) const { return program.begun; }
  /// Operations put in so far: the thread that puts them in.
  [[nodiscard]] std::uint64_t operations(const Program& program) const {
    return program.enqueued.load(std::memory_order_relaxed);
  }
  /// Whether there is such an event.
  [[nodiscard]] bool has_event(std::uint32_t event) const {
    return event < event_count_.load(std::memory_order_acquire);
  }
  /// Whether all operations have gone (their packets may still run).
  [[nodiscard]] bool all_gone(const Program& program) const {
    return program.gone.load(std::memory_order_acquire) ==
           program.enqueued.load(std::memory_order_acquire);
  }
  /// Whether any one operation can be put in.
  [[nodiscard]] bool has_room(const Program& program) const {
    return program.enqueued.load(std::memory_order_acquire) -
                   program.gone.load(std::memory_order_acquire) <
               Program::capacity &&
           program.begun - requests_done(program) < Program::most_requests;
  }
  /// Whether the recording's moment has come.
  [[nodiscard]] bool is_complete(EventUse use);
  /// How many other workers are active now.
  [[nodiscard]] std::uint32_t active_others() const;
  /// The completion that the program's progress hangs on, as of the last advance(); generation 0:
  /// none, or another program's.
  [[nodiscard]] SignalUse awaited(const Program& program) const;
  /// The stream on which the program is.
  [[nodiscard]] std::uint32_t stream(const Program& program) const {
    return program.awaited_stream.load(std::memory_order_relaxed);
  }
  /// The same of any program.
  [[nodiscard]] SignalUse awaited() const;
  [[nodiscard]] bool is_lost() const { return lost_.load(std::memory_order_acquire); }

 private:
  using Operation = Program::Operation;
  /// Where a group goes.
  struct Choice {
    std::uint32_t stream = 0;
    BypassReason bypass = BypassReason::count;
    std::uint32_t active = 0;  ///< set of workers, when there is no bypass
    SwitchReason why = SwitchReason::plan;
  };
  struct Event {
    std::uint32_t recordings = 0;             // of the thread that records
    std::atomic<std::uint32_t> submitted{0};  // recording
    std::atomic<std::uint64_t> use{0};        // a SignalUse, of that recording
    std::uint32_t stream = 0;
    const Program* program = nullptr;  // that records it, or did last
  };

  Enqueued put(Program& program, const Operation& operation);
  void advance(bool collect_first);
  void work(bool collect_first);
  void drain(Program& program);
  bool carry_out(Program& program, const Operation& operation);
  bool send_kernel(Program& program, const Operation& operation);
  bool start_group(Program& program, BypassReason stays);
  Choice choose(Program& program, BypassReason stays);
  void read_plan();
  bool move_to(Program& program, std::uint32_t stream);
  bool close_group(Program& program);
  void end_of_group(Program& program, SignalUse last);
  bool begin(Program& program, const Operation& operation);
  bool end(Program& program);
  bool record_event(Program& program, const Operation& operation);
  bool add_dependencies(Program& program, const Operation& operation);
  bool be_ready_to_call(Program& program);
  bool change_pin(Program& program, std::optional<BypassReason> pin);
  bool send_dependencies(Program& program);
  /// Makes sure that the last packet on the program's stream has a signal.
  bool mark_last(Program& program, bool ends_group);
  std::optional<SignalUse> take_signal();
  bool push(Program& program, const LeasePacket& packet);
  bool has_run(SignalUse use);
  void collect(Program& program);
  void observe(const Program::Group& group, Program& program);
  void publish(Program& program);
  bool try_work(bool collect_first);
  bool run_calls();
  void request_completed(Program& program);
  void add_work(std::int64_t requests);
  void show_activity();
  void lose();

  PacketSink& sink_;
  const PlanReader plan_;
  SchedulerReport& report_;
  std::atomic<std::uint32_t>* const active_set_;

  std::atomic<std::int64_t> work_{0};  // requests begun, or waiting, and not complete
  std::uint32_t waiting_ = 0;          // of the thread that says so
  std::atomic<std::uint32_t> seat_bit_{0};
  std::atomic<bool> lost_{false};
  std::atomic<std::uint32_t> state_{0};  // busy, again: see advance()

  std::mutex creation_;  // guards additions to the two below, whose counts are stored after
  std::array<std::unique_ptr<Program>, most_programs> programs_;
  std::array<std::unique_ptr<Event>, most_events> events_;
  std::atomic<std::uint32_t> program_count_{0};
  std::atomic<std::uint32_t> event_count_{0};

  // Whoever carries out advance().
  std::optional<PlanReader::Groups> groups_;
  std::uint64_t groups_epoch_ = 0;
  std::uint32_t next_signal_ = 0;
  bool event_submitted_ = false;
  std::array<float, PlanTable::max_groups> drift_{};
};

}  // namespace eclip
