// eclip-replay's parts: options, program, requests on a fake GPU, figures, cohorts.
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "tests/unit/libeclip/worker.h"
#include "tools/eclip-replay/report.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

TEST(ReplayOptions, TakesStreamsByCuCountOrNumber) {
  const auto choices = replay::parse_streams("15,#3,60");
  ASSERT_TRUE(choices.has_value());
  ASSERT_EQ(choices->size(), 3U);
  EXPECT_EQ((*choices)[0].cu_count, 15U);
  EXPECT_FALSE((*choices)[0].stream.has_value());
  EXPECT_EQ((*choices)[1].stream, 3U);
  for (const char* wrong : {"", "15,", "0", "#", "-1", "15;30", "1,1,1,1,1,1,1,1"})
    EXPECT_FALSE(replay::parse_streams(wrong).has_value()) << wrong;
}

TEST(ReplayOptions, TakesArrivalsAndCohorts) {
  EXPECT_EQ(*replay::parse_arrivals("closed"), std::nullopt);
  EXPECT_EQ(*replay::parse_arrivals("poisson:12.5"), 12.5);
  for (const char* wrong : {"", "poisson", "poisson:", "poisson:0", "poisson:-1", "poisson:nan"})
    EXPECT_FALSE(replay::parse_arrivals(wrong).has_value()) << wrong;
  const auto cohort = replay::parse_cohort("/tmp/a:b:3");
  ASSERT_TRUE(cohort.has_value());
  EXPECT_EQ(cohort->path, "/tmp/a:b");
  EXPECT_EQ(cohort->count, 3U);
  for (const char* wrong : {"", "/tmp/a", "/tmp/a:", "/tmp/a:0", "/tmp/a:65", ":2"})
    EXPECT_FALSE(replay::parse_cohort(wrong).has_value()) << wrong;
}

TEST(ReplayFigures, AreInDeviceTimeByNearestRank) {
  std::vector<std::chrono::nanoseconds> latencies;
  for (int i = 100; i >= 1; --i) latencies.push_back(i * 1ms);
  const replay::Latency latency = replay::summarise(latencies, 0.5);
  EXPECT_DOUBLE_EQ(latency.mean_ms, 25.25);
  EXPECT_DOUBLE_EQ(latency.p50_ms, 25);
  EXPECT_DOUBLE_EQ(latency.p95_ms, 47.5);
  EXPECT_DOUBLE_EQ(latency.p99_ms, 49.5);
  EXPECT_DOUBLE_EQ(latency.max_ms, 50);
  EXPECT_EQ(replay::summarise({}, 1).max_ms, 0);
}

model::Profile load(const char* name) {
  auto profile = model::load_profile(std::string(ECLIP_DATA_DIR "/profiles/") + name);
  if (!profile) throw std::runtime_error(profile.error().message());
  return *profile;
}

TEST(ReplayProgram, HoldsEqualKernelsOnce) {
  const model::Profile profile = load("densenet201-b1.h100.json");
  const auto program = replay::build_program(profile, false);
  ASSERT_TRUE(program.has_value());
  EXPECT_EQ(program->order.size(), profile.kernels.size());
  EXPECT_LT(program->shapes.size(), profile.kernels.size());
  EXPECT_EQ(program->image.kernel_offsets.size(), program->shapes.size());
  for (std::size_t i = 0; i < program->order.size(); ++i) {
    replay::ReplayRecord record;
    std::memcpy(&record,
                program->image.bytes.data() + program->image.kernel_offsets[program->order[i]] +
                    replay::record_offset,
                sizeof record);
    const auto kernel = replay::decode_replay_record(record);
    ASSERT_TRUE(kernel.has_value());
    EXPECT_NEAR(kernel->time_us(16), profile.kernels[i].kernel.time_us(16), 0.001);
  }
}

class Requests : public ::testing::Test {
 protected:
  static replay::Options on_streams(std::size_t count, std::uint64_t switch_every, bool mix) {
    replay::Options options;
    options.streams.assign(count, replay::StreamChoice{.stream = {}, .cu_count = 15});
    options.switch_every = switch_every;
    options.mix = mix;
    options.timeout = std::chrono::duration_cast<std::chrono::seconds>(deadline);
    return options;
  }
  static constexpr auto closed = replay::RequestRunner::Clock::time_point::min();
  static Connection connect_to(const FakeDaemon& daemon) {
    const std::string path = daemon.path();
    const eclip_connect_options options = options_for(path);
    return Connection(&options);
  }
};

TEST_F(Requests, KeepTheirOrderOverManySwitchesOfStream) {
  FakeDaemon daemon({.answer = {}, .truncate_memory = false, .run_packets = true});
  Connection connection = connect_to(daemon);
  const auto program = replay::build_program(load("resnet152-b1.h100.json"), true);
  ASSERT_TRUE(program.has_value());
  const std::uint64_t kernels = program->order.size() * 12;
  for (const std::uint64_t switch_every : {1U, 7U, 100U}) {
    replay::LeasedRunner runner(connection, *program, on_streams(3, switch_every, true));
    for (int i = 0; i < 12; ++i) runner.run(closed);
    ASSERT_GT(kernels, replay::MixChain::slot_count);
    EXPECT_EQ(runner.mix_chain()->value(), runner.mix_chain()->expected());
    EXPECT_EQ(runner.switches(), (kernels - 1) / switch_every);
    EXPECT_GE(runner.packets(), kernels + runner.switches() - 12);
  }
}

TEST_F(Requests, ShowAGpuThatIgnoresBarriers) {
  FakeDaemon daemon(
      {.answer = {}, .truncate_memory = false, .run_packets = true, .ignore_barriers = true});
  Connection connection = connect_to(daemon);
  const auto program = replay::build_program(load("resnet152-b1.h100.json"), true);
  replay::LeasedRunner runner(connection, *program, on_streams(3, 5, true));
  const auto wrong = [&] {
    try {
      runner.run(closed);
    } catch (const ApiError&) {
      return true;  // a signal that should have completed is busy
    }
    return runner.mix_chain()->value() != runner.mix_chain()->expected();
  };
  // It depends on when the GPU looks at its queues; on most requests it goes wrong.
  EXPECT_TRUE(eventually(wrong));
}

TEST_F(Requests, AreMeasuredAndReported) {
  FakeDaemon daemon({.answer = {}, .truncate_memory = false, .run_packets = true});
  daemon.board().device_time_rate = 1ULL << 31U;
  Connection connection = connect_to(daemon);
  const model::Profile profile = load("alexnet-b1.h100.json");
  const auto program = replay::build_program(profile, false);
  replay::LeasedRunner runner(connection, *program, on_streams(1, 0, false));
  replay::Options options;
  options.requests = 20;
  options.warmup = 3;
  options.poisson_rate = 10'000;
  const std::atomic<bool> stop = false;
  const replay::Workload workload{
      .run_request =
          [&](replay::HostClock::time_point next) {
            runner.run(next);
            return true;
          },
      .device_time_rate = [&] { return connection.gpu().device_time_rate; },
      .stop = &stop};
  const auto measurement = replay::measure(options, workload, nullptr);
  const auto report = replay::make_report(options, profile, *program, connection.gpu(),
                                          replay::work_of(runner), measurement);
  const auto json = replay::to_json(report);
  EXPECT_EQ(json["requests"], 20);
  EXPECT_EQ(json["unmeasured_requests"], 3);
  EXPECT_EQ(json["packets"], 23 * profile.kernels.size());
  EXPECT_EQ(json["simulated"], true);
  EXPECT_EQ(json["device_time_rate"], 0.5);
  EXPECT_GT(json["throughput_rps"], 0);
  EXPECT_GE(json["latency_ms"]["max"], json["latency_ms"]["p50"]);
  EXPECT_TRUE(json["mix"].is_null());
  EXPECT_THAT(replay::to_text(report), HasSubstr("(all figures are simulated)"));
}

TEST(Stop, EndsTheRunAfterTheCurrentRequest) {
  std::atomic<bool> stop = false;
  std::uint64_t requests = 0;
  const replay::Workload workload{.run_request =
                                      [&](replay::HostClock::time_point) {
                                        stop = ++requests == 5;
                                        return true;
                                      },
                                  .device_time_rate = [] { return 1.0; },
                                  .stop = &stop};
  replay::Options options;
  options.requests = 1000;
  options.warmup = 2;
  const auto measurement = replay::measure(options, workload, nullptr);
  EXPECT_TRUE(measurement.interrupted);
  EXPECT_EQ(measurement.latencies.size(), 3U);
  EXPECT_EQ(requests, 5U);
}

class CohortFile : public ::testing::Test {
 protected:
  CohortFile() { choice.path = std::filesystem::path(daemon.path()).parent_path() / "cohort"; }
  replay::Cohort join() {
    auto joined = replay::Cohort::join(choice);
    if (!joined) throw std::runtime_error(joined.error().message());
    return std::move(*joined);
  }

  FakeDaemon daemon;  // for its directory
  replay::CohortChoice choice{{}, 2};
  std::atomic<bool> stop = false;
};

TEST_F(CohortFile, StartsWhenAllAreThereAndEndsWhenAllHaveMeasured) {
  replay::Cohort first = join();
  auto started = std::async(std::launch::async, [&] {
    const auto result = first.wait_for_all(deadline, stop);
    return result.has_value() && *result;
  });
  replay::Cohort second = join();
  EXPECT_TRUE(started.get());
  EXPECT_TRUE(*second.wait_for_all(deadline, stop));
  first.finish();
  EXPECT_FALSE(*first.all_finished(deadline));
  second.finish();
  EXPECT_TRUE(*first.all_finished(deadline));
  EXPECT_TRUE(*second.all_finished(deadline));
}

TEST_F(CohortFile, NamesAMemberThatDied) {
  replay::Cohort first = join();
  { const replay::Cohort second = join(); }
  const auto finished = first.all_finished(deadline);
  ASSERT_FALSE(finished.has_value());
  EXPECT_THAT(finished.error().message(), HasSubstr("ended before it had measured"));
}

TEST_F(CohortFile, GivesUpOnMembersThatNeverComeOrStall) {
  replay::Cohort first = join();
  const auto started = first.wait_for_all(20ms, stop);
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().message(), HasSubstr("only 1 of the cohort's 2"));
  stop = true;
  EXPECT_FALSE(*first.wait_for_all(deadline, stop));
  replay::Cohort second = join();
  first.finish();
  EXPECT_TRUE(eventually([&] { return !first.all_finished(20ms).has_value(); }));
  second.count_request();
  EXPECT_TRUE(first.all_finished(20ms).has_value());
}

TEST_F(CohortFile, IsStartedAnewAfterDeadWorkersAndClosedToMoreThanItsCount) {
  { const replay::Cohort left_behind = join(); }
  const replay::Cohort first = join();
  const replay::Cohort second = join();
  EXPECT_EQ(replay::Cohort::join(choice).error().code, Errc::already_in_use);
  choice.count = 3;
  EXPECT_EQ(replay::Cohort::join(choice).error().code, Errc::invalid_argument);
}

TEST_F(CohortFile, IsNoOtherFile) {
  std::ofstream(choice.path) << "notes";
  EXPECT_EQ(replay::Cohort::join(choice).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace eclip::test
