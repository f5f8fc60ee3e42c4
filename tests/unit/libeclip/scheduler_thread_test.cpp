// Threads that put operations into programs of one scheduler, and whose calls advance it.
#include <functional>
#include <thread>

#include "tests/unit/libeclip/scheduler_fixture.h"

namespace eclip::test {
namespace {

TEST_F(SchedulerTest, ProgramsOfSeveralThreads) {
  constexpr std::uint32_t threads = 4;
  constexpr std::uint32_t rounds = 200;
  put_in_force(pairs({0, 1, 2}));
  std::vector<std::uint32_t> events;
  for (std::uint32_t i = 0; i < threads; ++i) {
    another();
    events.push_back(new_event());
  }
  std::atomic<bool> stop{false};
  std::thread gpu([&] {
    while (!stop.load()) {
      sink.complete_pushed();
      scheduler.advance();
      std::this_thread::yield();
    }
  });
  std::thread daemon([&] {
    for (std::uint8_t turn = 0; !stop.load(); ++turn) {
      put_in_force(pairs({static_cast<std::uint8_t>(turn % 3), 1, 2}));
      active.fetch_xor(2);
      std::this_thread::yield();
    }
  });
  std::atomic<std::uint32_t> calls{0};
  std::array<std::atomic<std::uint64_t>, threads> last_use{};
  std::vector<std::thread> hosts;
  for (std::uint32_t t = 0; t < threads; ++t)
    hosts.emplace_back([&, t] {
      Program& mine = *programs[t];
      const auto until = [&](const std::function<Enqueued()>& put) {
        Enqueued result = Enqueued::full;
        while ((result = put()) == Enqueued::full) std::this_thread::yield();
        ASSERT_EQ(result, Enqueued::yes);
      };
      for (std::uint32_t round = 0; round < rounds; ++round) {
        until([&] { return scheduler.begin_request(mine, round); });
        for (std::uint32_t k = 0; k < 6; ++k)
          until(
              [&] { return scheduler.dispatch(mine, kernel(t * 1'000'000 + round * 6 + k + 1)); });
        until([&] { return scheduler.end_request(mine); });
        EventUse use{};
        until([&] { return scheduler.record(mine, events[t], &use); });
        last_use[t].store(use.recording);
        const std::array<EventUse, 1> of_neighbour{
            EventUse{.event = events[(t + 1) % threads],
                     .recording = static_cast<std::uint32_t>(last_use[(t + 1) % threads].load())}};
        until([&] { return scheduler.wait(mine, of_neighbour); });
        until([&] {
          return scheduler.call(
              mine,
              [](void* argument) {
                static_cast<std::atomic<std::uint32_t>*>(argument)->fetch_add(1);
              },
              &calls);
        });
        static_cast<void>(scheduler.is_complete(use));
        static_cast<void>(scheduler.awaited());
      }
      while (scheduler.requests_done(mine) < rounds || !scheduler.all_gone(mine))
        std::this_thread::yield();
    });
  for (auto& host : hosts) host.join();
  stop = true;
  gpu.join();
  daemon.join();
  EXPECT_EQ(calls.load(), threads * rounds);
  EXPECT_EQ(active.load() & 1U, 0U);
  // Every kernel once, those of a program in their order.
  std::array<std::uint32_t, threads> next{};
  for (const auto& sent : sink.sent) {
    if (sent.packet.type != LeasePacketType::dispatch) continue;
    const std::uint32_t id = sent.packet.dispatch.kernel - 1;
    ASSERT_EQ(id % 1'000'000, next[id / 1'000'000]++);
  }
  for (const std::uint32_t count : next) EXPECT_EQ(count, rounds * 6);
}

TEST_F(SchedulerTest, TheActiveBitIsRightAfterThreadsHaveRaced) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  run_dry();
  for (int round = 0; round < 200; ++round) {
    std::thread waiting([&] {
      for (std::uint32_t i = 0; i < 20; ++i) scheduler.set_waiting_requests((i + 1) % 2);
    });
    for (int i = 0; i < 20; ++i) {
      request(program(), 1, 2);
      sink.complete_pushed();
      scheduler.advance();
    }
    waiting.join();
    ASSERT_EQ(active.load(), 0U) << "in round " << round;
    scheduler.set_waiting_requests(1);
    ASSERT_EQ(active.load(), 1U);
    scheduler.set_waiting_requests(0);
  }
}

}  // namespace
}  // namespace eclip::test
