#include "daemon/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/topology.h"

namespace eclip::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string error_of(std::string_view text) {
  const auto config = parse_config(text, "test.toml");
  return config ? "accepted" : config.error().message();
}

const GpuTopology mi50{.name = "mi50", .cu_count = 60, .shader_engines = 4};

TEST(Config, AnEmptyFileGivesTheDefaultsAndTheTreePool) {
  const auto config = parse_config("", "test.toml");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->daemon.socket, "/run/eclip/eclipd.sock");
  const auto masks = pool_masks(*config, mi50);
  ASSERT_TRUE(masks);
  EXPECT_EQ(masks->size(), 7U);
}

TEST(Config, EveryKeyIsRead) {
  const auto config = parse_config(R"(
[daemon]
socket = "/tmp/e.sock"
socket_group = "render"
log_level = "debug"
[gpu]
node = 2
[pool]
streams = ["0:0-29", "0:0x3fffffff"]
[workers]
max_workers = 3
max_memory_mib = 5
max_memory_objects = 6
max_kernels = 7
[leases]
grace_ms = 10
claim_ms = 11
preempt = true
max_holders_per_stream = 2
max_workers = 12
max_leases = 13
max_share_percent = 14
max_priority = "normal"
[[limits]]
uid = 1000
max_leases = 15
[[limits]]
uid = 1001
max_workers = 0
max_share_percent = 16
max_priority = "low"
[forwarder]
watchdog_s = 3
spin_us = 8
nap_us = 9
patience_ms = 21
[budget]
policy = "enforce"
gate_drm_devices = true
[probes]
measure_ioctls = true
)",
                                   "test.toml");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->daemon.socket, "/tmp/e.sock");
  EXPECT_EQ(config->daemon.socket_group, "render");
  EXPECT_EQ(config->daemon.log_level, "debug");
  EXPECT_EQ(config->gpu.node, 2U);
  EXPECT_EQ(config->workers.max_workers, 3U);
  EXPECT_EQ(config->workers.max_memory_bytes, 5U << 20);
  EXPECT_EQ(config->workers.max_memory_objects, 6U);
  EXPECT_EQ(config->workers.max_kernels, 7U);
  EXPECT_EQ(config->forwarder.spin, std::chrono::microseconds(8));
  EXPECT_EQ(config->forwarder.nap, std::chrono::microseconds(9));
  EXPECT_EQ(config->forwarder.patience, std::chrono::milliseconds(21));
  EXPECT_EQ(config->forwarder.watchdog, std::chrono::seconds(3));
  EXPECT_TRUE(config->probes.measure_ioctls);
  EXPECT_EQ(config->budget.policy, BudgetTier::enforce);
  EXPECT_TRUE(config->budget.gate_drm_devices);
  EXPECT_EQ(config->leases.grace, std::chrono::milliseconds(10));
  EXPECT_EQ(config->leases.claim, std::chrono::milliseconds(11));
  EXPECT_TRUE(config->leases.preempt);
  EXPECT_EQ(config->leases.max_holders_per_stream, 2U);
  const auto& others = limits_of(*config, 7);
  EXPECT_EQ(others.max_workers, 12U);
  EXPECT_EQ(others.max_leases, 13U);
  EXPECT_EQ(others.max_share_percent, 14U);
  EXPECT_EQ(others.max_priority, LeasePriority::normal);
  EXPECT_EQ(limits_of(*config, 1000).max_leases, 15U);
  EXPECT_EQ(limits_of(*config, 1000).max_workers, 12U) << "left out: as in [leases]";
  EXPECT_EQ(limits_of(*config, 1001).max_workers, 0U);
  EXPECT_EQ(limits_of(*config, 1001).max_share_percent, 16U);
  EXPECT_EQ(limits_of(*config, 1001).max_priority, LeasePriority::low);
  const auto masks = pool_masks(*config, mi50);
  ASSERT_TRUE(masks);
  EXPECT_EQ((*masks)[0], (*masks)[1]);
}

TEST(Config, AnUnknownKeyIsNamedWithItsLineAndTheKeysThatThereAre) {
  EXPECT_THAT(
      error_of("[daemon]\n\nsokcet = \"/x\"\n"),
      AllOf(HasSubstr("test.toml:3"), HasSubstr("daemon.sokcet"), HasSubstr("socket_group")));
  EXPECT_THAT(error_of("[deamon]\n"), AllOf(HasSubstr("deamon"), HasSubstr("[daemon]")));
  EXPECT_THAT(error_of("stray = 1\n"), HasSubstr("stray"));
}

TEST(Config, AWrongTypeOrRangeIsNamed) {
  EXPECT_THAT(error_of("[daemon]\nsocket = 1\n"), HasSubstr("daemon.socket must be a string"));
  EXPECT_THAT(error_of("[daemon]\nsocket = \"relative\"\n"), HasSubstr("absolute path"));
  EXPECT_THAT(error_of("[daemon]\nlog_level = \"loud\"\n"), HasSubstr("is not one of"));
  EXPECT_THAT(error_of("daemon = 3\n"), HasSubstr("[daemon] must be a table"));
  EXPECT_THAT(error_of("[workers]\nmax_workers = 0\n"), HasSubstr("from 1 to 120"));
  EXPECT_THAT(error_of("[workers]\nmax_workers = 1.5\n"), HasSubstr("integer"));
  EXPECT_THAT(error_of("[pool]\nstreams = \"0:0-3\"\n"), HasSubstr("array of strings"));
  EXPECT_THAT(error_of("[probes]\nmeasure_ioctls = 1\n"), HasSubstr("true or false"));
  EXPECT_THAT(error_of("[budget]\npolicy = \"strict\"\n"), HasSubstr("off, audit, enforce"));
  EXPECT_THAT(error_of("[pool]\nstreams = []\n"), HasSubstr("empty"));
  EXPECT_THAT(error_of("[pool]\nlayout = \"tree\"\nstreams = [\"0:1\"]\n"), HasSubstr("exclude"));
}

TEST(Config, LimitsThatAreWrongAreNamedWithTheirLine) {
  EXPECT_THAT(error_of("[[limits]]\nmax_leases = 1\n"), HasSubstr("without a uid"));
  EXPECT_THAT(error_of("[[limits]]\nuid = 1\n[[limits]]\nuid = 1\n"),
              AllOf(HasSubstr("test.toml:3"), HasSubstr("uid 1")));
  EXPECT_THAT(error_of("[[limits]]\nuid = -1\n"), HasSubstr("limits.uid must be an integer"));
  EXPECT_THAT(
      error_of("[[limits]]\nuid = 1\nmax_lease = 1\n"),
      AllOf(HasSubstr("test.toml:3"), HasSubstr("limits.max_lease;"), HasSubstr("max_leases")));
  EXPECT_THAT(error_of("[limits]\nuid = 1\n"), HasSubstr("[[limits]]"));
  EXPECT_THAT(error_of("limits = [1]\n"), HasSubstr("tables"));
  EXPECT_THAT(error_of("[leases]\nmax_share_percent = 0\n"), HasSubstr("from 1 to 100"));
  EXPECT_THAT(error_of("[leases]\nmax_priority = \"urgent\"\n"), HasSubstr("low, normal, high"));
  EXPECT_THAT(error_of("[leases]\nmax_holders_per_stream = 0\n"), HasSubstr("from 1 to 16"));
}

TEST(Config, TruncatedTomlIsMalformedWithItsLine) {
  EXPECT_THAT(error_of("[daemon]\nsocket = \"/ru"), HasSubstr("test.toml:2"));
}

TEST(Config, EightStreamsExceedTheBudget) {
  const auto config = parse_config(
      R"(pool.streams = ["0:0","0:1","0:2","0:3","0:4","0:5","0:6","0:7"])", "test.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, Errc::budget_exceeded);
  EXPECT_THAT(config.error().message(), AllOf(HasSubstr("8"), HasSubstr("7")));
}

TEST(Config, AMaskOutsideTheGpuOrWithoutCusIsRefused) {
  const auto error = [](const char* text) {
    const auto masks = pool_masks(*parse_config(text, "test.toml"), mi50);
    return masks ? "accepted" : masks.error().message();
  };
  EXPECT_THAT(error(R"(pool.streams = ["0:0-29", "0:50-60"])"),
              AllOf(HasSubstr("pool.streams[1]"), HasSubstr("CUs 0-59")));
  EXPECT_THAT(error(R"(pool.streams = ["0:0x0"])"), HasSubstr("has no CU"));
  EXPECT_THAT(error_of(R"(pool.streams = ["1:0-3"])"), HasSubstr("GPU 0"));
  EXPECT_THAT(error_of(R"(pool.streams = ["0-3"])"), HasSubstr("GPU_list:CU_list"));
}

TEST(Config, AMissingFileIsNamed) {
  EXPECT_THAT(load_config("/nonexistent.toml").error().message(), HasSubstr("/nonexistent.toml"));
}

}  // namespace
}  // namespace eclip::daemon
