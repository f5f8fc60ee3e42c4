// What tests of the scheduler's C ABI start with: a connection, a plan, and the rings that the
// scheduler writes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {

class ScheduledWorker : public Worker {
 protected:
  static constexpr std::uint32_t no_mask = PlanTable::max_streams - 1;

  explicit ScheduledWorker(FakeDaemon::Behaviour behaviour = {}) : Worker(std::move(behaviour)) {}

  int try_to_create(std::uint32_t flags = 0, std::uint32_t latency_class = 0) {
    eclip_scheduler_options options{};
    options.struct_size = sizeof options;
    options.flags = flags;
    options.latency_class = latency_class;
    return eclip_scheduler_create(context, &options, &scheduler);
  }
  void create(std::uint32_t flags = 0) {
    if (context == nullptr) connect();
    ASSERT_EQ(try_to_create(flags), 0) << eclip_last_error();
  }
  void destroy() { eclip_scheduler_destroy(std::exchange(scheduler, nullptr)); }
  eclip_program* create_program() {
    if (scheduler == nullptr) create();
    eclip_program* program = nullptr;
    EXPECT_EQ(eclip_program_create(scheduler, &program), 0) << eclip_last_error();
    return program;
  }
  std::uint32_t create_event() {
    std::uint32_t event = 0;
    EXPECT_EQ(eclip_event_create(scheduler, &event), 0) << eclip_last_error();
    return event;
  }
  static int try_to_dispatch(eclip_program* program, std::uint32_t kernel = 7) {
    eclip_dispatch dispatch = some_dispatch();
    dispatch.kernel = kernel;
    return eclip_program_dispatch(program, &dispatch);
  }
  static void dispatch(eclip_program* program, std::uint32_t kernel = 7) {
    ASSERT_EQ(try_to_dispatch(program, kernel), 0) << eclip_last_error();
  }
  static void begin(eclip_program* program, std::uint64_t deadline_at = 0) {
    ASSERT_EQ(eclip_request_begin(program, deadline_at), 0) << eclip_last_error();
  }
  static std::uint64_t end(eclip_program* program) {
    std::uint64_t request = 0;
    EXPECT_EQ(eclip_request_end(program, &request), 0) << eclip_last_error();
    return request;
  }
  /// Kernels 0 .. kernels - 1.
  static std::uint64_t request(eclip_program* program, std::uint32_t kernels) {
    begin(program);
    for (std::uint32_t kernel = 0; kernel < kernels; ++kernel) dispatch(program, kernel);
    return end(program);
  }
  static eclip_event record(eclip_program* program, std::uint32_t event) {
    eclip_event recorded{};
    EXPECT_EQ(eclip_event_record(program, event, &recorded), 0) << eclip_last_error();
    return recorded;
  }
  eclip_scheduler_state describe() {
    eclip_scheduler_state state{};
    state.struct_size = sizeof state;
    EXPECT_EQ(eclip_scheduler_describe(scheduler, &state), 0) << eclip_last_error();
    return state;
  }

  /// Groups of two kernels on these streams, whoever is active. The worker has seat 0 of two.
  void plan_pairs(const std::vector<std::uint8_t>& streams) {
    WorkerPlan plan;
    plan.workers = 3;
    for (std::uint32_t group = 0; group < streams.size(); ++group)
      plan.first_kernel.push_back(2 * group);
    plan.kernel_count = static_cast<std::uint32_t>(2 * streams.size());
    plan.stream = {{}, streams, {}, streams};
    daemon.plan(plan);
  }

  std::uint64_t written(std::uint32_t stream) { return daemon.scheduled_ring(stream).written; }
  LeasePacket packet(std::uint32_t stream, std::uint64_t number) {
    return daemon.scheduled_ring(stream).slots.at(number % LeaseRing::slot_count).packet;
  }
  /// "0 1 B>": the kernels and barriers in the ring, > for a completion signal.
  std::string sent(std::uint32_t stream) {
    std::string text;
    for (std::uint64_t i = 0; i < written(stream); ++i) {
      const LeasePacket each = packet(stream, i);
      text += text.empty() ? "" : " ";
      text += each.type == LeasePacketType::dispatch ? std::to_string(each.dispatch.kernel) : "B";
      if (each.completion.generation != 0) text += ">";
    }
    return text;
  }
  /// The completion of the last packet that has one.
  SignalUse last_completion(std::uint32_t stream) {
    SignalUse use{0, 0};
    for (std::uint64_t i = 0; i < written(stream); ++i)
      if (packet(stream, i).completion.generation != 0) use = packet(stream, i).completion;
    return use;
  }
  /// The GPU does what is in the rings; whether there was anything.
  bool run_pushed() {
    bool any = false;
    for (std::uint32_t stream = 0; stream < PlanTable::max_streams; ++stream) {
      LeaseRing& ring = daemon.scheduled_ring(stream);
      const std::uint64_t end = ring.written;
      for (std::uint64_t i = ring.taken; i < end; ++i) {
        any = true;
        if (packet(stream, i).completion.generation != 0)
          daemon.complete(packet(stream, i).completion, i, i + 1);
      }
      ring.taken = end;
    }
    return any;
  }
  /// The GPU does all that comes.
  void run_dry() {
    ASSERT_EQ(eclip_scheduler_advance(scheduler), 0) << eclip_last_error();
    while (run_pushed()) ASSERT_EQ(eclip_scheduler_advance(scheduler), 0) << eclip_last_error();
  }
  void set_state(std::uint32_t stream, LeaseState state, LeaseEnd reason) {
    LeaseSlot& slot = daemon.lease_slot(FakeDaemon::scheduled_slot(stream));
    slot.reason = static_cast<std::uint32_t>(reason);
    slot.state = static_cast<std::uint32_t>(state);
  }
  std::size_t releases() { return daemon.requests(MessageType::lease_release).size(); }
  void disconnect() { eclip_disconnect(std::exchange(context, nullptr)); }

  eclip_scheduler* scheduler = nullptr;
};

}  // namespace eclip::test
