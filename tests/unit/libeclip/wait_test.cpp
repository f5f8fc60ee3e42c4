// Waiting for completion, and how waits end when the packet does not.
#include <future>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class Wait : public Worker {
 protected:
  eclip_token submit_one() {
    if (context == nullptr) connect();
    if (lease == nullptr) lease = acquire();
    if (!signal) signal = create_signal();
    return submit(lease, with_signal(*signal));
  }
  /// Waits in a thread of its own, and returns once it sleeps or is about to.
  std::future<std::pair<int, std::string>> wait_in_background(eclip_token token) {
    auto result = std::async(std::launch::async, [this, token] {
      const int code = eclip_wait(context, token, deadline_ns);
      return std::pair<int, std::string>(code, eclip_last_error());
    });
    EXPECT_TRUE(eventually([this] { return waiters() == 1; }));
    return result;
  }

  /// Threads of the worker that wait, for whatever signal.
  unsigned waiters() {
    unsigned count = 0;
    for (const auto& each : daemon.request().waiters) count += each.load();
    return count;
  }

  eclip_lease* lease = nullptr;
  std::optional<std::uint32_t> signal;
};

TEST_F(Wait, ReturnsAtOnceForWhatIsCompleteOrNone) {
  const eclip_token token = submit_one();
  daemon.complete(use_of(token));
  EXPECT_EQ(eclip_wait(context, token, 0), 0);
  EXPECT_EQ(eclip_wait(context, eclip_token{0, 0}, 0), 0);
  EXPECT_EQ(eclip_is_complete(context, eclip_token{0, 0}), 1);
  EXPECT_EQ(waiters(), 0U);
}

TEST_F(Wait, RefusesTokensOfNoPacket) {
  connect();
  EXPECT_EQ(eclip_wait(context, eclip_token{3, 1}, 0), -EINVAL);
  EXPECT_EQ(eclip_wait(context, eclip_token{1024, 1}, 0), -EINVAL);
  EXPECT_EQ(eclip_is_complete(context, eclip_token{1024, 1}), 0);
}

TEST_F(Wait, IsWokenByTheCompletion) {
  constexpr int rounds = 20;
  const auto start = Clock::now();
  for (int i = 0; i < rounds; ++i) {
    const eclip_token token = submit_one();
    auto result = wait_in_background(token);
    daemon.complete(use_of(token));
    EXPECT_EQ(result.get().first, 0);
    EXPECT_EQ(waiters(), 0U);
  }
  // Without the wake-up each round would take the library's longest sleep, 100 ms.
  EXPECT_LT(Clock::now() - start, std::chrono::milliseconds(100) * rounds / 2);
}

TEST_F(Wait, IgnoresCompletionsOfOtherPackets) {
  const eclip_token token = submit_one();
  auto result = wait_in_background(token);
  const std::uint32_t other = create_signal();
  daemon.complete({other, 1});
  daemon.forward(use_of(token));
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  daemon.complete(use_of(token));
  EXPECT_EQ(result.get().first, 0);
}

TEST_F(Wait, EndsAtItsDeadlineAndNotBefore) {
  const eclip_token token = submit_one();
  const auto start = Clock::now();
  EXPECT_EQ(eclip_wait(context, token, 30'000'000), -ETIMEDOUT);
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(30));
  EXPECT_EQ(waiters(), 0U);
  daemon.complete(use_of(token));
  EXPECT_EQ(eclip_wait(context, token, UINT64_MAX), 0);
}

TEST_F(Wait, WakesAForwarderThatSleeps) {
  const eclip_token token = submit_one();
  daemon.board().forwarder_asleep = 1;
  auto result = wait_in_background(token);
  EXPECT_TRUE(eventually([this] { return daemon.request().wake == 1; }));
  daemon.complete(use_of(token));
  EXPECT_EQ(result.get().first, 0);
}

TEST_F(Wait, EndsWithTheReasonWhenTheWorkerIsCutOff) {
  auto result = wait_in_background(submit_one());
  daemon.cut_off(Errc::invalid_argument, 101, 0);
  const auto [code, text] = result.get();
  EXPECT_EQ(code, -EPROTO);
  EXPECT_THAT(text, HasSubstr("packet 0 of lease 101 was refused (invalid argument)"));
}

TEST_F(Wait, NoticesTheEndOfEclipd) {
  auto result = wait_in_background(submit_one());
  const auto start = Clock::now();
  daemon.die();
  EXPECT_EQ(result.get().first, -ECONNRESET);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(2));
  const eclip_dispatch dispatch = some_dispatch();
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -ECONNRESET);
}

TEST_F(Wait, StillSeesWhatCompletedBeforeTheEnd) {
  const eclip_token token = submit_one();
  daemon.complete(use_of(token));
  daemon.die();
  EXPECT_EQ(eclip_wait(context, token, deadline_ns), 0);
}

TEST_F(Wait, GivesTimesInNanosecondsOfTheDevice) {
  const eclip_token token = submit_one();
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  EXPECT_EQ(eclip_token_times(context, token, &start, &end), -EAGAIN);
  // At 25 MHz a tick takes 40 ns; the ticks are those of about 100 days.
  constexpr std::uint64_t ticks = 25'000'000ULL * 86400 * 100 + 3;
  daemon.complete(use_of(token), ticks, ticks + 1000);
  ASSERT_EQ(eclip_token_times(context, token, &start, &end), 0) << eclip_last_error();
  EXPECT_EQ(start, 86400ULL * 100 * 1'000'000'000 + 120);
  EXPECT_EQ(end - start, 40'000U);
  submit_one();
  EXPECT_EQ(eclip_token_times(context, token, &start, &end), -EAGAIN);
  EXPECT_THAT(eclip_last_error(), HasSubstr("used again"));
}

TEST_F(Wait, ManyThreadsWaitForTheirOwnPackets) {
  connect();
  lease = acquire();
  std::vector<eclip_token> tokens;
  tokens.reserve(8);
  for (int i = 0; i < 8; ++i) tokens.push_back(submit(lease, with_signal(create_signal())));
  std::vector<std::future<int>> results;
  results.reserve(tokens.size());
  for (const eclip_token token : tokens)
    results.push_back(std::async(
        std::launch::async, [this, token] { return eclip_wait(context, token, deadline_ns); }));
  for (auto token = tokens.rbegin(); token != tokens.rend(); ++token)
    daemon.complete(use_of(*token));
  for (auto& result : results) EXPECT_EQ(result.get(), 0);
}

}  // namespace
}  // namespace eclip::test
