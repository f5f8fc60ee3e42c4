#include "tests/unit/libeclip/scheduler_vm.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "libeclip/scheduler.h"

namespace eclip::test {
namespace {

constexpr std::uint32_t most_programs = 4;
constexpr std::uint32_t most_streams = PacketSink::unmasked + 1;

std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111eb;
  return value ^ (value >> 31U);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
  std::uint32_t next() {
    state_ += 0x9e3779b97f4a7c15;
    return static_cast<std::uint32_t>(mix(state_) >> 16U);
  }
  /// 0 .. count - 1
  std::uint32_t below(std::uint32_t count) {
    return static_cast<std::uint32_t>((std::uint64_t{next()} * count) >> 32U);
  }
  std::uint32_t between(std::uint32_t least, std::uint32_t most) {
    return least + below(most - least + 1);
  }
  bool chance(std::uint32_t permille) { return below(1000) < permille; }
  template <typename T>
  const T& of(const std::vector<T>& values) {
    return values[below(static_cast<std::uint32_t>(values.size()))];
  }

 private:
  std::uint64_t state_;
};

/// For each program of a worker, how many of its operations.
using Clock = std::array<std::uint32_t, most_programs>;

void join(Clock& clock, const Clock& other) {
  for (std::size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

enum class Kind : std::uint8_t { begin, end, dispatch, wait, record, call, pin, unpin };
constexpr std::array<const char*, 8> kind_names{"begin",  "end",  "kernel", "wait",
                                                "record", "call", "pin",    "unpin"};

struct Operation {
  Kind kind{};
  BypassReason reason = BypassReason::count;
  std::uint8_t program = 0;
  std::uint8_t inputs = 0;
  std::uint8_t outputs = 0;
  std::array<std::uint8_t, 3> input{};  // buffers
  std::array<std::uint8_t, 2> output{};
  std::uint32_t place = 0;                     // in its program
  std::uint32_t shape = 1;                     // workgroups
  EventUse recorded{0, 0};                     // record
  std::uint32_t first_use = 0, use_count = 0;  // wait, of Worker::uses
  Clock after{};                               // all these come before it
  std::uint64_t expected = 0;
  bool done = false;
  std::uint32_t stream = 99;  // to which it went

  [[nodiscard]] bool is_work() const { return kind == Kind::dispatch || kind == Kind::call; }
};

struct Recording {
  EventUse use;
  Clock after;
};

/// What a worker's programs do, made in an order in which it could be done one by one.
struct Work {
  std::vector<Operation> operations;
  std::vector<std::vector<std::uint32_t>> programs;  // of operations
  std::vector<EventUse> uses;
  std::vector<Recording> recordings;
  std::uint32_t event_count = 0;
  std::vector<std::uint32_t> shapes;        // of a request that the plan knows
  std::vector<std::uint64_t> final_values;  // of the buffers
  std::uint32_t kernels = 0;
};

class WorkMaker {
 public:
  WorkMaker(Random& random, std::uint32_t kernels, bool dense)
      : random_(random), kernels_(kernels) {
    const std::uint32_t programs = random_.between(1, most_programs);
    states_.resize(programs);
    work_.programs.resize(programs);
    buffers_.resize(dense ? random_.between(1, 2) : random_.between(2, 16));
    work_.event_count = random_.chance(500) ? random_.between(1, 3) : random_.between(4, 40);
    recorded_.resize(work_.event_count);
    const std::uint32_t length = random_.between(1, 24);
    for (std::uint32_t k = 0; k < length; ++k) work_.shapes.push_back(random_.between(1, 9));
    call_rate_ = random_.chance(300) ? 0 : random_.below(60);
    event_rate_ = random_.below(100);
    pin_rate_ = random_.chance(600) ? 0 : random_.below(60);
    unknown_rate_ = random_.chance(600) ? 0 : random_.below(400);
    stays_rate_ = random_.chance(500) ? 0 : random_.below(80);
    dense_ = dense;
  }

  Work make() {
    std::uint32_t p = 0;
    const std::uint32_t burst = random_.between(1, 20);
    while (work_.kernels < kernels_) {
      if (random_.below(burst) == 0) p = random_.below(static_cast<std::uint32_t>(states_.size()));
      step(p);
    }
    for (p = 0; p < states_.size(); ++p) {
      if (states_[p].pinned) append(p, Kind::unpin);
      if (states_[p].in_request) append(p, Kind::end);
    }
    for (const Buffer& buffer : buffers_) work_.final_values.push_back(buffer.value);
    return std::move(work_);
  }

 private:
  struct State {
    Clock known{};
    bool in_request = false, pinned = false, unknown = false;
    std::uint32_t kernel = 0, length = 0;
  };
  struct Buffer {
    std::uint64_t value = 0;
    std::uint32_t writer = 0, write_end = 0;  // program, place + 1
    Clock read_end{};
  };

  Operation& append(std::uint32_t p, Kind kind) {
    Operation& made = work_.operations.emplace_back();
    made.kind = kind;
    made.program = static_cast<std::uint8_t>(p);
    made.place = static_cast<std::uint32_t>(work_.programs[p].size());
    made.after = states_[p].known;
    work_.programs[p].push_back(static_cast<std::uint32_t>(work_.operations.size() - 1));
    states_[p].known[p] = made.place + 1;
    return made;
  }

  EventUse record(std::uint32_t p) {
    Operation& made = append(p, Kind::record);
    const std::uint32_t event = random_.below(work_.event_count);
    made.recorded = {.event = event, .recording = ++recorded_[event]};
    work_.recordings.push_back({made.recorded, made.after});
    return made.recorded;
  }

  void wait(std::uint32_t p, const std::vector<Recording>& recordings) {
    Operation& made = append(p, Kind::wait);
    made.first_use = static_cast<std::uint32_t>(work_.uses.size());
    made.use_count = static_cast<std::uint32_t>(recordings.size());
    for (const Recording& each : recordings) {
      work_.uses.push_back(each.use);
      join(states_[p].known, each.after);
    }
  }

  /// Of events since long ago, too.
  void fan_in(std::uint32_t p) {
    std::vector<Recording> some;
    const std::uint32_t count = random_.between(1, random_.chance(300) ? 20 : 4);
    if (random_.chance(400))
      for (std::uint32_t q = 0; q < states_.size(); ++q) {
        record(q);
        some.push_back(work_.recordings.back());
      }
    for (std::uint32_t i = 0; i < count; ++i) {
      if (work_.recordings.empty() || random_.chance(30)) {
        some.push_back({{.event = random_.below(5000), .recording = 0}, {}});
        continue;
      }
      const auto all = static_cast<std::uint32_t>(work_.recordings.size());
      const std::uint32_t back = random_.below(std::min(all, random_.chance(800) ? 30U : all));
      some.push_back(work_.recordings[all - 1 - back]);
    }
    wait(p, some);
  }

  /// Programs whose accesses must come before p's.
  std::vector<std::uint32_t> conflicts(std::uint32_t p, const Buffer& buffer, bool writes) const {
    const Clock& known = states_[p].known;
    std::vector<std::uint32_t> with;
    for (std::uint32_t q = 0; q < states_.size(); ++q)
      if (q != p && ((buffer.writer == q && buffer.write_end > known[q]) ||
                     (writes && buffer.read_end[q] > known[q])))
        with.push_back(q);
    return with;
  }

  std::uint8_t choose_buffer(std::uint32_t p, bool writes) {
    std::uint32_t number = 0;
    for (int tries = 0; tries < 3; ++tries) {
      number = random_.below(static_cast<std::uint32_t>(buffers_.size()));
      if (conflicts(p, buffers_[number], writes).empty()) return static_cast<std::uint8_t>(number);
      if (dense_ || random_.chance(300)) break;
    }
    std::vector<Recording> recordings;
    for (const std::uint32_t q : conflicts(p, buffers_[number], writes)) {
      record(q);
      recordings.push_back(work_.recordings.back());
    }
    wait(p, recordings);
    return static_cast<std::uint8_t>(number);
  }

  void compute(std::uint32_t p, Kind kind) {
    Operation chosen;
    chosen.inputs = static_cast<std::uint8_t>(dense_ ? 3 : random_.below(4));
    chosen.outputs = static_cast<std::uint8_t>(random_.chance(dense_ ? 0 : 50) ? 0 : 1);
    if (random_.chance(100)) chosen.outputs = 2;
    for (std::uint32_t i = 0; i < chosen.inputs; ++i) chosen.input[i] = choose_buffer(p, false);
    for (std::uint32_t i = 0; i < chosen.outputs; ++i) chosen.output[i] = choose_buffer(p, true);
    Operation& made = append(p, kind);
    made.inputs = chosen.inputs;
    made.input = chosen.input;
    made.outputs = chosen.outputs;
    made.output = chosen.output;
    made.expected = work_.operations.size();
    for (std::uint32_t i = 0; i < made.inputs; ++i) {
      Buffer& buffer = buffers_[made.input[i]];
      made.expected = mix(made.expected ^ buffer.value);
      buffer.read_end[p] = made.place + 1;
    }
    for (std::uint32_t i = 0; i < made.outputs; ++i) {
      Buffer& buffer = buffers_[made.output[i]];
      buffer.value = mix(made.expected + i);
      buffer.writer = p;
      buffer.write_end = made.place + 1;
    }
  }

  void step(std::uint32_t p) {
    State& state = states_[p];
    if (random_.chance(event_rate_)) {
      if (random_.chance(500))
        record(p);
      else
        fan_in(p);
    }
    if (random_.chance(call_rate_)) compute(p, Kind::call);
    if (state.pinned ? random_.chance(200) : random_.chance(pin_rate_)) {
      Operation& made = append(p, state.pinned ? Kind::unpin : Kind::pin);
      made.reason = random_.chance(600) ? BypassReason::uniform : BypassReason::graph;
      state.pinned = !state.pinned;
    }
    if (!state.in_request && random_.chance(850)) {
      append(p, Kind::begin);
      state.in_request = true;
      state.kernel = 0;
      state.length = static_cast<std::uint32_t>(work_.shapes.size());
      state.unknown = random_.chance(unknown_rate_);
      if (state.unknown && random_.chance(500)) state.length = random_.below(2 * state.length + 2);
    }
    if (!state.in_request || state.kernel < state.length) {
      compute(p, Kind::dispatch);
      Operation& made = work_.operations.back();
      ++work_.kernels;
      made.shape = random_.between(1, 9);
      if (state.in_request && state.kernel < work_.shapes.size() &&
          !(state.unknown && random_.chance(200)))
        made.shape = work_.shapes[state.kernel];
      if (random_.chance(stays_rate_))
        made.reason = random_.chance(500) ? BypassReason::cooperative : BypassReason::persistent;
      ++state.kernel;
    }
    if (state.in_request && state.kernel >= state.length) {
      append(p, Kind::end);
      state.in_request = false;
    }
  }

  Random& random_;
  std::uint32_t kernels_;
  Work work_;
  std::vector<State> states_;
  std::vector<Buffer> buffers_;
  std::vector<std::uint32_t> recorded_;
  std::uint32_t call_rate_ = 0, event_rate_ = 0, pin_rate_ = 0, unknown_rate_ = 0, stays_rate_ = 0;
  bool dense_ = false;
};

struct Worker;
class Machine;

class MachineSink : public PacketSink {
 public:
  MachineSink(Machine& machine, Worker& worker) : machine_(machine), worker_(worker) {}
  [[nodiscard]] bool has_stream(std::uint32_t stream) const override;
  Pushed push(std::uint32_t stream, const LeasePacket& packet) override;
  std::optional<SignalUse> begin_use(std::uint32_t signal) override;
  void cancel_use(SignalUse use) override;
  [[nodiscard]] bool is_complete(SignalUse use) const override;
  [[nodiscard]] std::optional<Times> times(SignalUse use) const override;

 private:
  Machine& machine_;
  Worker& worker_;
};

struct Signal {
  std::uint32_t begun = 0, pushed = 0, forwarded = 0;
  std::int32_t value = 0;
  std::uint32_t barriers = 0;  // in queues, that wait for it
  std::uint64_t start = 0, end = 0;
};

struct CallArgument {
  Machine* machine;
  Worker* worker;
  std::uint32_t operation;
};

struct Worker {
  Worker(Machine& machine, std::uint32_t own_number, Work made)
      : number(own_number), work(std::move(made)), sink(machine, *this) {}

  std::uint32_t number;
  Work work;
  std::vector<std::uint64_t> buffers;
  std::vector<std::uint32_t> recorded;  // of each event, put into a program
  std::vector<CallArgument> arguments;
  struct Progress {
    Program* program = nullptr;
    std::uint32_t next = 0;  // to be put in
    std::uint32_t done = 0;  // that many are, from the first on
    std::uint64_t requests = 0;
    std::vector<std::uint32_t> ends;  // operations
  };
  std::vector<Progress> programs;
  std::array<Signal, PacketSink::signal_count> signals;
  std::array<std::deque<LeasePacket>, most_streams> rings;
  std::array<std::uint32_t, most_streams> unfinished{};  // packets in that queue, or running
  std::unique_ptr<PlanTables> tables = std::make_unique<PlanTables>();
  SchedulerReport report{};
  MachineSink sink;
  std::optional<Scheduler> scheduler;
  bool killed = false;
  std::uint64_t ran = 0;
};

class Machine {
 public:
  explicit Machine(const DagCase& dag) : dag_(dag), random_(dag.seed) {
    const std::uint32_t stream_count = random_.between(1, 4);
    has_[random_.chance(500) ? PacketSink::unmasked : 0] = true;
    if (stream_count > 1) has_[0] = true;
    for (std::uint32_t i = 1; i < stream_count; ++i) has_[random_.below(most_streams)] = true;
    for (std::uint32_t s = 0; s < most_streams; ++s)
      if (has_[s]) streams_.push_back(s);
    constexpr std::array<std::uint32_t, 4> ring_sizes{1, 3, 16, 1024};
    constexpr std::array<std::uint32_t, 4> queue_sizes{1, 4, 32, 256};
    ring_size_ = ring_sizes[random_.below(4)];
    queue_size_ = queue_sizes[random_.below(4)];
    signal_limit_ = random_.chance(300) ? random_.between(1, 8) : PacketSink::signal_count;
    full_rate_ = random_.chance(500) ? 0 : random_.below(300);
    signal_rate_ = random_.chance(700) ? 0 : random_.below(300);
    lazy_rate_ = random_.below(600);
    eager_ = random_.chance(500);
    turns_ = random_.chance(700);
    decoupled_ = random_.chance(200);
    for (auto& weight : weights_) weight = 1U << random_.below(5);
    burst_ = random_.between(1, 16);
    plan_rate_ = random_.below(60);
    const bool dense = dag.dense;
    const std::uint32_t workers = random_.between(1, dense ? 2 : 4);
    for (std::uint32_t w = 0; w < workers; ++w) {
      const std::uint32_t share = std::max(1U, dag.kernels / workers);
      workers_.push_back(
          std::make_unique<Worker>(*this, w, WorkMaker(random_, share, dense).make()));
      open(*workers_.back());
    }
    may_kill_ = workers > 1 && dag.mutation == Mutation::none && random_.chance(200);
    if (random_.chance(900)) change_plan();
  }

  DagResult run() {
    std::uint32_t idle = 0;
    while (result_.failure.empty()) {
      if (act()) {
        idle = 0;
        if (eager_) process_all();
        continue;
      }
      if (++idle < 30) continue;
      idle = 0;
      if (!sweep() && !sweep()) {
        if (!is_done()) fail("nothing moves any more\n" + dump());
        break;
      }
    }
    for (const auto& each : workers_) finish(*each);
    return result_;
  }

 private:
  friend class MachineSink;

  struct QueuePacket {
    Worker* worker;
    bool is_dispatch, barrier;
    std::uint32_t operation;
    std::uint8_t waits;  // for the first so many
    std::array<std::uint32_t, 5> dependencies;
    SignalUse completion;
  };
  struct Running {
    Worker* worker;
    std::uint32_t stream, operation, laziness;
    std::uint64_t value, start;
    SignalUse completion;
  };

  void open(Worker& worker) {
    worker.buffers.resize(worker.work.final_values.size());
    worker.recorded.resize(worker.work.event_count);
    worker.programs.resize(worker.work.programs.size());
    worker.arguments.resize(worker.work.operations.size());
    worker.scheduler.emplace(worker.sink, PlanReader(*worker.tables, epoch_), worker.report,
                             &active_);
    for (std::uint32_t p = 0; p < worker.programs.size(); ++p) {
      worker.programs[p].program = worker.scheduler->create_program();
      for (const std::uint32_t each : worker.work.programs[p])
        if (worker.work.operations[each].kind == Kind::end) worker.programs[p].ends.push_back(each);
    }
    for (std::uint32_t e = 0; e < worker.work.event_count; ++e)
      static_cast<void>(worker.scheduler->create_event());
  }

  // --- what may happen

  bool act() {
    ++now_;
    std::uint32_t sum = 0;
    for (const std::uint32_t weight : weights_) sum += weight;
    std::uint32_t pick = random_.below(sum);
    std::size_t action = 0;
    while (pick >= weights_[action]) pick -= weights_[action++];
    switch (action) {
      case 0: {
        Worker& worker = any_worker();
        const auto p = random_.below(static_cast<std::uint32_t>(worker.programs.size()));
        bool moved = false;
        for (std::uint32_t i = random_.between(1, burst_); i > 0 && put(worker, p); --i)
          moved = true;
        return moved;
      }
      case 1:
        return advance(any_worker());
      case 2: {
        bool moved = false;
        const std::uint32_t stream = random_.of(streams_);
        for (std::uint32_t i = random_.between(1, burst_); i > 0 && forward(stream); --i)
          moved = true;
        return moved;
      }
      case 3:
        return process(random_.of(streams_));
      case 4:
        if (running_.empty()) return false;
        {
          const auto which = random_.below(static_cast<std::uint32_t>(running_.size()));
          if (random_.chance(running_[which].laziness)) return false;
          end(which);
          return true;
        }
      default:
        if (random_.chance(plan_rate_)) change_plan();
        if (random_.chance(300)) active_.fetch_xor(1U << random_.below(PlanTable::max_workers));
        if (may_kill_ && random_.chance(20)) kill();
        return false;
    }
  }

  /// All that can be done without an end of a kernel; then one ends.
  bool sweep() {
    calm_ = true;
    bool moved = false;
    for (const auto& worker : workers_) {
      for (std::uint32_t p = 0; p < worker->programs.size(); ++p)
        while (put(*worker, p)) moved = true;
      moved |= advance(*worker);
    }
    for (const std::uint32_t stream : streams_)
      while (forward(stream)) moved = true;
    moved |= process_all();
    if (!moved && !running_.empty()) {
      end(random_.below(static_cast<std::uint32_t>(running_.size())));
      moved = true;
    }
    calm_ = false;
    return moved;
  }

  Worker& any_worker() {
    return *workers_[random_.below(static_cast<std::uint32_t>(workers_.size()))];
  }

  bool put(Worker& worker, std::uint32_t p) {
    Worker::Progress& progress = worker.programs[p];
    if (worker.killed || progress.next == worker.work.programs[p].size()) return false;
    const std::uint32_t index = worker.work.programs[p][progress.next];
    const Operation& operation = worker.work.operations[index];
    Scheduler& scheduler = *worker.scheduler;
    Program& program = *progress.program;
    Enqueued result = Enqueued::yes;
    switch (operation.kind) {
      case Kind::begin:
        result = scheduler.begin_request(program, random_.below(3) * now_);
        break;
      case Kind::end:
        result = scheduler.end_request(program);
        break;
      case Kind::dispatch: {
        LeaseDispatch dispatch{};
        dispatch.kernel = index + 1;
        dispatch.grid_size = {64 * operation.shape, 1, 1};
        dispatch.workgroup_size = {64, 1, 1};
        result = scheduler.dispatch(program, dispatch, operation.reason);
        break;
      }
      case Kind::wait: {
        const std::span<const EventUse> uses(worker.work.uses.data() + operation.first_use,
                                             operation.use_count);
        // Nobody can wait for a recording that he does not know.
        for (const EventUse& use : uses)
          if (use.recording != 0 && worker.recorded[use.event] < use.recording) return false;
        result = scheduler.wait(program, uses);
        break;
      }
      case Kind::record: {
        const EventUse expected = operation.recorded;
        if (worker.recorded[expected.event] + 1 != expected.recording) return false;
        EventUse use{};
        result = scheduler.record(program, expected.event, &use);
        if (result != Enqueued::yes) break;
        if (use.recording != expected.recording) fail("a recording has another number");
        ++worker.recorded[expected.event];
        break;
      }
      case Kind::call:
        worker.arguments[index] = {this, &worker, index};
        result = scheduler.call(
            program,
            [](void* argument) {
              const CallArgument& call = *static_cast<CallArgument*>(argument);
              call.machine->call(*call.worker, call.operation);
            },
            &worker.arguments[index]);
        break;
      case Kind::pin:
        result = scheduler.pin(program, operation.reason);
        break;
      case Kind::unpin:
        result = scheduler.unpin(program);
        break;
    }
    if (result == Enqueued::invalid || result == Enqueued::lost)
      fail(name(worker, index) + " was refused");
    if (result != Enqueued::yes) return false;
    ++progress.next;
    look(worker);
    return true;
  }

  bool advance(Worker& worker) {
    if (worker.killed) return false;
    const std::uint64_t before = changes_;
    worker.scheduler->advance();
    look(worker);
    return changes_ != before;
  }

  /// What the worker says has completed must have.
  void look(Worker& worker) {
    for (auto& progress : worker.programs) {
      const std::uint64_t done = worker.scheduler->requests_done(*progress.program);
      for (; progress.requests < done; ++progress.requests) {
        ++changes_;
        const std::uint32_t end = progress.ends[progress.requests];
        if (has_come(worker, worker.work.operations[end].after)) continue;
        result_.told_too_early = true;
        fail(name(worker, end) + " is complete too early");
      }
    }
    if (worker.work.recordings.empty() || !random_.chance(200)) return;
    const Recording& some = random_.of(worker.work.recordings);
    if (worker.recorded[some.use.event] < some.use.recording ||
        !worker.scheduler->is_complete(some.use))
      return;
    if (!has_come(worker, some.after)) {
      result_.told_too_early = true;
      fail("worker " + std::to_string(worker.number) + ": event " + std::to_string(some.use.event) +
           " recording " + std::to_string(some.use.recording) + " is complete too early");
    }
  }

  void call(Worker& worker, std::uint32_t index) {
    ++changes_;
    ++result_.calls;
    const std::uint64_t value = begin(worker, index, "is called");
    write(worker, index, value);
  }

  void change_plan() {
    const std::uint64_t next = epoch_.load() + 1;
    for (const auto& worker : workers_)
      if (random_.chance(900)) write_plan(*worker->tables, next, make_plan(*worker));
    epoch_.store(next);
  }

  WorkerPlan make_plan(const Worker& worker) {
    WorkerPlan plan;
    const auto& shapes = worker.work.shapes;
    plan.seat = worker.number;
    plan.workers = (1U << workers_.size()) - 1;
    plan.kernel_count = random_.chance(250) ? 0 : static_cast<std::uint32_t>(shapes.size());
    const std::uint32_t cut_rate = random_.below(1000);
    LaunchShapes check;
    for (std::uint32_t k = 0; k < shapes.size(); ++k) {
      if (k == 0 || random_.chance(cut_rate)) {
        if (k > 0) plan.shapes.push_back(check.value());
        plan.first_kernel.push_back(k);
        check = {};
      }
      check.add(shapes[k]);
    }
    plan.shapes.push_back(check.value());
    const std::uint32_t known = random_.below(3);
    if (known == 0) plan.shapes.clear();
    if (known == 1 && random_.chance(300)) ++plan.shapes[0];
    const std::uint32_t sets = 1U << workers_.size();
    const std::uint32_t rows = random_.chance(800) ? sets : random_.between(1, sets);
    const bool same = random_.chance(200);
    for (std::uint32_t set = 0; set < rows; ++set) {
      plan.stream.emplace_back();
      std::uint8_t stream = random_stream();
      for (std::size_t g = 0; g < plan.first_kernel.size(); ++g) {
        if (!same) stream = random_stream();
        plan.stream.back().push_back(stream);
      }
    }
    plan.alone_us = std::vector<std::vector<float>>(
        PlanTable::max_streams, std::vector<float>(plan.first_kernel.size(), 10));
    plan.slowdown = std::vector<float>(rows, 1);
    return plan;
  }
  std::uint8_t random_stream() {
    if (random_.chance(30)) return PlanTable::not_planned;
    if (random_.chance(30)) return static_cast<std::uint8_t>(random_.below(256));
    const std::uint32_t stream = random_.of(streams_);
    return stream == PacketSink::unmasked ? PlanTable::no_mask : static_cast<std::uint8_t>(stream);
  }

  /// Its packets that are not in queues vanish; eclipd clears its bit.
  void kill() {
    Worker& worker = any_worker();
    may_kill_ = random_.chance(300);
    if (worker.killed) return;
    worker.killed = true;
    ++result_.killed;
    for (auto& ring : worker.rings) ring.clear();
    active_.fetch_and(~(1U << worker.number));
  }

  // --- eclipd

  static bool is_dispatch(const LeasePacket& packet) {
    return packet.type == LeasePacketType::dispatch;
  }

  bool can_go(const Worker& worker, std::uint32_t stream) const {
    const auto& ring = worker.rings[stream];
    if (ring.empty() || queues_[stream].size() >= queue_size_) return false;
    const LeasePacket& packet = ring.front();
    if (!is_dispatch(packet))
      for (const SignalUse& use : packet.barrier.dependencies)
        if (use.generation > worker.signals[use.signal].forwarded) return false;
    // Dependencies are kept in software: nothing in a queue waits.
    if (decoupled_ && (packet.flags & LeasePacket::flag_barrier) != 0 &&
        worker.unfinished[stream] > 0)
      return false;
    if (decoupled_ && !is_dispatch(packet))
      for (const SignalUse& use : packet.barrier.dependencies)
        if (!worker.sink.is_complete(use)) return false;
    // Arming it again would make the barriers wait for this packet, too.
    return packet.completion.generation == 0 ||
           worker.signals[packet.completion.signal].barriers == 0;
  }

  bool forward(std::uint32_t stream) {
    Worker*& turn = turn_[stream];
    if (turn == nullptr || !turns_ || !can_go(*turn, stream)) {
      turn = nullptr;
      const auto first = random_.below(static_cast<std::uint32_t>(workers_.size()));
      for (std::size_t i = 0; i < workers_.size() && turn == nullptr; ++i) {
        Worker* const each = workers_[(first + i) % workers_.size()].get();
        if (can_go(*each, stream)) turn = each;
      }
      if (turn == nullptr) return false;
    }
    Worker& worker = *turn;
    const LeasePacket packet = worker.rings[stream].front();
    worker.rings[stream].pop_front();
    ++changes_;
    QueuePacket to{};
    to.worker = &worker;
    to.is_dispatch = is_dispatch(packet);
    to.barrier = !decoupled_ && (packet.flags & LeasePacket::flag_barrier) != 0;
    ++worker.unfinished[stream];
    to.completion = packet.completion;
    if (to.is_dispatch) {
      to.operation = packet.dispatch.kernel - 1;
    } else {
      for (const SignalUse& use : packet.barrier.dependencies) {
        Signal& signal = worker.signals[use.signal];
        if (use.generation == 0 || signal.forwarded > use.generation || signal.value == 0) continue;
        ++signal.barriers;
        to.dependencies[to.waits++] = use.signal;
      }
    }
    if (to.completion.generation != 0) {
      Signal& signal = worker.signals[to.completion.signal];
      if (signal.value != 0 || signal.forwarded >= to.completion.generation)
        fail("worker " + std::to_string(worker.number) + " uses signal " +
             std::to_string(to.completion.signal) + " again before it is complete");
      signal.value = 1;
      signal.forwarded = to.completion.generation;
    }
    queues_[stream].push_back(to);
    if ((packet.flags & LeasePacket::flag_group_end) != 0) turn = nullptr;
    return true;
  }

  // --- the GPU

  bool process_all() {
    bool any = false;
    for (bool moved = true; moved;) {
      moved = false;
      for (const std::uint32_t stream : streams_) moved |= process(stream);
      any |= moved;
    }
    return any;
  }

  /// A queue's packets in their order; a kernel starts as early as it may.
  bool process(std::uint32_t stream) {
    auto& queue = queues_[stream];
    bool moved = false;
    while (!queue.empty()) {
      QueuePacket& packet = queue.front();
      if (packet.barrier && in_flight_[stream] > 0) break;
      Worker& worker = *packet.worker;
      if (packet.is_dispatch) {
        const std::uint64_t value = begin(worker, packet.operation, "starts");
        running_.push_back({&worker, stream, packet.operation,
                            random_.chance(lazy_rate_) ? random_.below(1000) : 0, value, now_,
                            packet.completion});
        ++in_flight_[stream];
      } else {
        // Each is seen at 0 once.
        while (packet.waits > 0) {
          Signal& signal = worker.signals[packet.dependencies[packet.waits - 1U]];
          if (signal.value != 0) break;
          --signal.barriers;
          --packet.waits;
        }
        if (packet.waits > 0) break;
        --worker.unfinished[stream];
        complete(worker, packet.completion, now_);
      }
      queue.pop_front();
      ++changes_;
      moved = true;
    }
    return moved;
  }

  void end(std::size_t which) {
    const Running ended = running_[which];
    running_[which] = running_.back();
    running_.pop_back();
    --in_flight_[ended.stream];
    --ended.worker->unfinished[ended.stream];
    ++changes_;
    write(*ended.worker, ended.operation, ended.value);
    complete(*ended.worker, ended.completion, ended.start);
  }

  void complete(Worker& worker, SignalUse use, std::uint64_t start) const {
    if (use.generation == 0) return;
    Signal& signal = worker.signals[use.signal];
    signal.value = 0;
    signal.start = 1000 * start;
    signal.end = 1000 * now_;
  }

  // --- values

  std::uint64_t begin(Worker& worker, std::uint32_t index, const char* what) {
    Operation& operation = worker.work.operations[index];
    ++worker.ran;
    if (operation.kind == Kind::dispatch) ++result_.kernels;
    check_order(worker, operation, index, what);
    std::uint64_t value = index + 1;
    for (std::uint32_t i = 0; i < operation.inputs; ++i)
      value = mix(value ^ worker.buffers[operation.input[i]]);
    if (value != operation.expected)
      fail(name(worker, index) + " sees other values than it should");
    return value;
  }
  void write(Worker& worker, std::uint32_t index, std::uint64_t value) {
    Operation& operation = worker.work.operations[index];
    for (std::uint32_t i = 0; i < operation.outputs; ++i)
      worker.buffers[operation.output[i]] = mix(value + i);
    if (operation.done) fail(name(worker, index) + " ran twice");
    operation.done = true;
  }

  static std::uint32_t done(Worker& worker, std::size_t p) {
    Worker::Progress& progress = worker.programs[p];
    const auto& operations = worker.work.programs[p];
    while (progress.done < operations.size()) {
      const Operation& operation = worker.work.operations[operations[progress.done]];
      if (operation.is_work() && !operation.done) break;
      ++progress.done;
    }
    return progress.done;
  }
  static bool has_come(Worker& worker, const Clock& clock) {
    for (std::size_t p = 0; p < worker.programs.size(); ++p)
      if (clock[p] > done(worker, p)) return false;
    return true;
  }
  void check_order(Worker& worker, const Operation& operation, std::uint32_t index,
                   const char* what) {
    if (has_come(worker, operation.after)) return;
    result_.order_differs = true;
    if (dag_.mutation != Mutation::none) return;
    for (std::size_t p = 0; p < worker.programs.size(); ++p) {
      const std::uint32_t done_there = done(worker, p);
      if (operation.after[p] <= done_there) continue;
      const std::uint32_t before = worker.work.programs[p][done_there];
      fail(name(worker, index) + " " + what + " before " + name(worker, before) + " has ended");
    }
  }

  void finish(Worker& worker) {
    if (worker.killed) return;
    if (worker.buffers != worker.work.final_values) {
      result_.final_values_differ = true;
      fail("worker " + std::to_string(worker.number) + ": other values at the end");
    }
    for (const auto& each : worker.report.switches) result_.moves += each.load();
    for (std::size_t i = 0; i < result_.bypassed.size(); ++i)
      result_.bypassed[i] += worker.report.bypassed[i].load();
    result_.scheduled += worker.report.scheduled.load();
  }

  [[nodiscard]] bool is_done() const {
    return std::all_of(workers_.begin(), workers_.end(),
                       [](const auto& worker) {
                         if (worker->killed) return true;
                         for (std::size_t p = 0; p < worker->programs.size(); ++p) {
                           const auto& progress = worker->programs[p];
                           if (progress.next != worker->work.programs[p].size() ||
                               done(*worker, p) != progress.next ||
                               progress.requests != progress.ends.size() ||
                               !worker->scheduler->all_gone(*progress.program))
                             return false;
                         }
                         return std::all_of(worker->rings.begin(), worker->rings.end(),
                                            [](const auto& ring) { return ring.empty(); });
                       }) &&
           std::all_of(queues_.begin(), queues_.end(),
                       [](const auto& queue) { return queue.empty(); });
  }

  // --- what is said

  static std::string name(const Worker& worker, std::uint32_t index) {
    const Operation& operation = worker.work.operations[index];
    return "worker " + std::to_string(worker.number) + " program " +
           std::to_string(operation.program) + " operation " + std::to_string(operation.place) +
           " (" + kind_names[static_cast<std::size_t>(operation.kind)] + " " +
           std::to_string(index + 1) + ", stream " +
           (operation.stream == 99 ? "none" : std::to_string(operation.stream)) + ")";
  }
  void fail(const std::string& text) {
    // A mutated run goes on to its end, where the values are compared.
    if (dag_.mutation != Mutation::none || !result_.failure.empty()) return;
    result_.failure = "seed " + std::to_string(dag_.seed) + ": " + text;
  }
  std::string dump() const {
    std::string text;
    for (const auto& worker : workers_) {
      if (worker->killed) text += "  worker " + std::to_string(worker->number) + " was killed\n";
      for (std::size_t p = 0; p < worker->programs.size(); ++p) {
        const auto& progress = worker->programs[p];
        const auto& operations = worker->work.programs[p];
        text += "  worker " + std::to_string(worker->number) + " program " + std::to_string(p) +
                ": put in " + std::to_string(progress.next) + " of " +
                std::to_string(operations.size()) + ", done " + std::to_string(done(*worker, p)) +
                ", requests complete " + std::to_string(progress.requests) + " of " +
                std::to_string(progress.ends.size()) +
                (worker->scheduler->all_gone(*progress.program) ? ", all gone" : "") + "\n";
        if (done(*worker, p) < operations.size())
          text +=
              "    first that is not done: " + name(*worker, operations[done(*worker, p)]) + "\n";
        if (progress.next < operations.size())
          text += "    next to put in: " + name(*worker, operations[progress.next]) + "\n";
      }
      for (const std::uint32_t stream : streams_) {
        if (worker->rings[stream].empty()) continue;
        text += "    ring " + std::to_string(stream) + ": " +
                std::to_string(worker->rings[stream].size()) + " packets, the first waits for";
        const LeasePacket& packet = worker->rings[stream].front();
        if (packet.type == LeasePacketType::barrier_and)
          for (const SignalUse& use : packet.barrier.dependencies)
            if (use.generation > worker->signals[use.signal].forwarded)
              text += " " + std::to_string(use.signal) + "." + std::to_string(use.generation);
        text += "\n";
      }
    }
    for (const std::uint32_t stream : streams_) {
      if (queues_[stream].empty()) continue;
      const QueuePacket& packet = queues_[stream].front();
      text += "  queue " + std::to_string(stream) + ": " + std::to_string(queues_[stream].size()) +
              " packets, the first of worker " + std::to_string(packet.worker->number) +
              " waits for";
      for (std::uint32_t i = 0; i < packet.waits; ++i)
        text += " signal " + std::to_string(packet.dependencies[i]);
      text += ", in flight " + std::to_string(in_flight_[stream]) + "\n";
    }
    return text;
  }

  const DagCase dag_;
  Random random_;
  DagResult result_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::uint32_t> streams_;
  std::array<bool, most_streams> has_{};
  std::array<std::deque<QueuePacket>, most_streams> queues_;
  std::array<std::uint32_t, most_streams> in_flight_{};
  std::array<Worker*, most_streams> turn_{};
  std::vector<Running> running_;
  std::atomic<std::uint64_t> epoch_{0};
  std::atomic<std::uint32_t> active_{0};
  std::uint64_t now_ = 0;
  std::uint64_t changes_ = 0;
  /// put, advance, forward, process, end, others
  std::array<std::uint32_t, 6> weights_{};
  std::uint32_t ring_size_ = 0, queue_size_ = 0, signal_limit_ = 0, burst_ = 1;
  std::uint32_t plan_rate_ = 0;
  std::uint32_t full_rate_ = 0, signal_rate_ = 0, lazy_rate_ = 0;
  bool eager_ = false, turns_ = false, decoupled_ = false, may_kill_ = false, calm_ = false;
};

bool MachineSink::has_stream(std::uint32_t stream) const {
  return stream < most_streams && machine_.has_[stream];
}

PacketSink::Pushed MachineSink::push(std::uint32_t stream, const LeasePacket& packet) {
  if (worker_.killed) return Pushed::lost;
  auto& ring = worker_.rings[stream];
  if (!has_stream(stream)) machine_.fail("a packet for a stream that there is not");
  if (ring.size() >= machine_.ring_size_ ||
      (!machine_.calm_ && machine_.random_.chance(machine_.full_rate_)))
    return Pushed::full;
  ++machine_.changes_;
  LeasePacket sent = packet;
  const bool has_completion = packet.completion.generation != 0;
  if (has_completion) {
    Signal& signal = worker_.signals[packet.completion.signal];
    if (signal.begun != packet.completion.generation || signal.pushed == signal.begun)
      machine_.fail("a completion that was not begun");
    signal.pushed = packet.completion.generation;
  }
  // The kth that the mutation fits is changed.
  const auto chosen = [&](Mutation mutation) {
    return machine_.result_.candidates[static_cast<std::size_t>(mutation)]++ ==
               machine_.dag_.mutate_at &&
           machine_.dag_.mutation == mutation;
  };
  const auto without_barrier = static_cast<std::uint8_t>(sent.flags & ~LeasePacket::flag_barrier);
  if (packet.type == LeasePacketType::dispatch) {
    worker_.work.operations[packet.dispatch.kernel - 1].stream = stream;
    if (chosen(Mutation::dispatch_bit)) sent.flags = without_barrier;
  } else {
    bool waits = false;
    for (SignalUse& use : sent.barrier.dependencies) {
      if (use.generation == 0) continue;
      if (worker_.signals[use.signal].pushed < use.generation)
        machine_.fail("worker " + std::to_string(worker_.number) +
                      ": a packet goes before one for which it waits");
      waits = true;
      if (chosen(Mutation::dependency)) use = {0, 0};
    }
    if (waits && chosen(Mutation::barrier_packet)) return Pushed::yes;
    if (has_completion && chosen(Mutation::marker_bit)) sent.flags = without_barrier;
    if (has_completion && chosen(Mutation::marker_packet)) {
      worker_.signals[packet.completion.signal].forwarded = packet.completion.generation;
      return Pushed::yes;
    }
  }
  ring.push_back(sent);
  return Pushed::yes;
}

std::optional<SignalUse> MachineSink::begin_use(std::uint32_t signal) {
  Signal& of = worker_.signals[signal];
  if (signal >= machine_.signal_limit_ || !is_complete({signal, of.begun}) ||
      (!machine_.calm_ && machine_.random_.chance(machine_.signal_rate_)))
    return std::nullopt;
  return SignalUse{signal, ++of.begun};
}

void MachineSink::cancel_use(SignalUse use) {
  Signal& of = worker_.signals[use.signal];
  if (of.begun != use.generation || of.pushed == use.generation)
    machine_.fail("a use is taken back that was not begun last");
  --of.begun;
}

bool MachineSink::is_complete(SignalUse use) const {
  const Signal& of = worker_.signals[use.signal];
  return use.generation == 0 || of.begun > use.generation || of.forwarded > use.generation ||
         (of.forwarded == use.generation && of.value == 0);
}

std::optional<PacketSink::Times> MachineSink::times(SignalUse use) const {
  const Signal& of = worker_.signals[use.signal];
  if (of.begun != use.generation) return std::nullopt;
  return Times{of.start, of.end};
}

}  // namespace

const char* name_of(Mutation mutation) {
  constexpr std::array<const char*, 6> names{"barrier packet", "dependency",    "barrier bit",
                                             "marker's bit",   "marker packet", "none"};
  return names[static_cast<std::size_t>(mutation)];
}

DagResult run_dag(const DagCase& dag) {
  return Machine(dag).run();
}

}  // namespace eclip::test
