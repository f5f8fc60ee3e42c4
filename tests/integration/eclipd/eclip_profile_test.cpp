// eclip-profile record, eclipd, libeclip and eclip-replay together: what is recorded of a replayed
// profile is that profile.
#include <algorithm>
#include <filesystem>

#include "daemon/model/profile.h"
#include "daemon/model/profile_document.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

/// Of a kernel's time in device time. The simulated GPU runs kernels one after the other without
/// anybody beside them; what is left is the clock's resolution of 40 ns at both ends.
constexpr double tolerance = 0.02;
constexpr double clock_error_us = 0.08;

class EclipProfile : public EclipdTest {
 protected:
  [[nodiscard]] std::string file(const std::string& name) const {
    return (directory_.path() / name).string();
  }
  /// `eclip-profile record -o recorded.json MORE -- COMMAND`, run to its end.
  std::unique_ptr<ChildProcess> record(const std::vector<std::string>& more,
                                       const std::vector<std::string>& command) {
    std::vector<std::string> all{ECLIP_PROFILE_PROGRAM, "record", "-o", file("recorded.json")};
    all.insert(all.end(), more.begin(), more.end());
    all.emplace_back("--");
    all.insert(all.end(), command.begin(), command.end());
    auto child = std::make_unique<ChildProcess>(all);
    status_ = child->wait();
    return child;
  }
  static std::vector<std::string> replay_of(const std::string& profile,
                                            const std::vector<std::string>& more) {
    std::vector<std::string> command{ECLIP_REPLAY_PROGRAM, "--profile",
                                     ECLIP_DATA_DIR "/profiles/" + profile + ".h100.json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }

  int status_ = -1;
};

TEST_F(EclipProfile, RecordsWhatTheSimulatedGpuReplays) {
  start();
  const auto child =
      record({"--model", "shufflenet", "--batch", "8", "--repeats", "2"},
             replay_of("shufflenet_v2_x1_0-b8", {"--requests", "3", "--warmup", "2"}));
  ASSERT_EQ(status_, 0) << child->errors();
  const auto recorded = model::load_profile_document(file("recorded.json"));
  ASSERT_TRUE(recorded) << recorded.error().message();
  const auto replayed =
      model::load_profile(ECLIP_DATA_DIR "/profiles/shufflenet_v2_x1_0-b8.h100.json");
  ASSERT_TRUE(replayed) << replayed.error().message();
  EXPECT_EQ(recorded->model, "shufflenet");
  EXPECT_EQ(recorded->batch, 8U);
  EXPECT_EQ(recorded->device_compute_units, 60U);
  EXPECT_EQ(recorded->cu_counts, (std::vector<std::uint32_t>{15, 30, 60}));
  // Two runs of two and three requests, of which the first does not count.
  EXPECT_EQ(recorded->samples, (std::vector<std::uint32_t>{8, 8, 8}));
  ASSERT_EQ(recorded->kernels.size(), replayed->kernels.size());
  for (std::size_t k = 0; k < recorded->kernels.size(); ++k) {
    const model::KernelRow& row = recorded->kernels[k];
    const model::Kernel& kernel = replayed->kernels[k].kernel;
    EXPECT_EQ(row.shape.workgroups, std::max(kernel.shape().workgroups, 1U)) << "kernel " << k;
    for (std::size_t i = 0; i < recorded->cu_counts.size(); ++i) {
      const double expected_us = kernel.time_on_mask_us(recorded->cu_counts[i]);
      EXPECT_NEAR(row.time_us[i], expected_us, expected_us * tolerance + clock_error_us)
          << "kernel " << k << " on " << recorded->cu_counts[i] << " CUs";
    }
  }
  EXPECT_TRUE(model::load_profile(file("recorded.json")));
}

TEST_F(EclipProfile, ARecordedProfileCanBeReplayed) {
  start();
  auto child = record({"--cus", "30,60", "--repeats", "1"},
                      replay_of("alexnet-b8", {"--requests", "2", "--streams", "#3"}));
  ASSERT_EQ(status_, 0) << child->errors();
  const auto recorded = model::load_profile(file("recorded.json"));
  ASSERT_TRUE(recorded) << recorded.error().message();
  EXPECT_EQ(recorded->model, "eclip-replay") << "the command's name";
  EXPECT_EQ(recorded->kernels.size(), 24U);
  EXPECT_EQ(recorded->cu_counts, (std::vector<std::uint32_t>{30, 60}));
  ChildProcess again({ECLIP_REPLAY_PROGRAM, "--profile", file("recorded.json"), "--requests", "2"});
  EXPECT_EQ(again.wait(), 0) << again.errors();
}

TEST_F(EclipProfile, SaysWhyNothingWasRecorded) {
  start();
  EXPECT_TRUE(record({}, {"true"})->says("run 1 on 15 CUs: the command dispatched no kernel"));
  EXPECT_EQ(status_, 1);
  EXPECT_TRUE(record({}, {"false"})->says("run 1 on 15 CUs: 'false' ended with status 1"));
  EXPECT_TRUE(record({}, {"/nonexistent"})->says("run 1 on 15 CUs: start '/nonexistent'"));
  EXPECT_TRUE(record({"--cus", "16"}, {"true"})->says("no stream of the pool has 16 CUs"));
  Connection connection;
  const Lease lease = connection.lease_stream(2);
  EXPECT_TRUE(record({}, {"true"})->says("stream 2 is leased"));
  EXPECT_FALSE(std::filesystem::exists(file("recorded.json")));
}

}  // namespace
}  // namespace eclip::test
