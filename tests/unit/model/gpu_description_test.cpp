// The reader of GPU descriptions.
#include "daemon/model/gpu_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace eclip::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

fs::path shipped(const std::string& name) {
  return fs::path(ECLIP_DATA_DIR) / "gpus" / (name + ".toml");
}

class GpuDescriptionErrors : public ::testing::Test {
 protected:
  ~GpuDescriptionErrors() override { fs::remove(file_); }

  /// The message for the shipped mi50 description with the first `from` replaced.
  std::string message_after(const std::string& from, const std::string& to) {
    std::ifstream stream(shipped("mi50"));
    std::ostringstream text;
    text << stream.rdbuf();
    std::string spoilt = text.str();
    const std::size_t place = spoilt.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    if (place != std::string::npos) spoilt.replace(place, from.size(), to);
    std::ofstream(file_) << spoilt;
    const auto gpu = load_gpu_description(file_);
    if (gpu) return "no error";
    EXPECT_EQ(gpu.error().code, Errc::malformed);
    EXPECT_THAT(gpu.error().message(), HasSubstr(file_.string()));
    return gpu.error().message();
  }

  fs::path file_ =
      fs::temp_directory_path() / ("eclip-gpu-" + std::to_string(::getpid()) + ".toml");
};

TEST(GpuDescription, Mi50IsWhatTheKfdReports) {
  const auto gpu = load_gpu_description(shipped("mi50"));
  ASSERT_TRUE(gpu) << gpu.error().message();
  EXPECT_EQ(gpu->name, "mi50");
  EXPECT_EQ(gpu->geometry.cu_count(), 60U);
  EXPECT_EQ(gpu->geometry.shader_engines, 4U);
  EXPECT_EQ(gpu->geometry.threads_per_cu, 2560U);
  EXPECT_EQ(gpu->geometry.local_memory_per_cu, 65536U);
  EXPECT_EQ(gpu->shader_engine_of(6), 2U);
  EXPECT_EQ(gpu->topology.gfx_target_version, 90006U);
  EXPECT_EQ(gpu->topology.device_id, 26273U);
  EXPECT_EQ(gpu->topology.revision_id, 2U);
  EXPECT_EQ(gpu->topology.vram_bytes, 34342961152U);
  EXPECT_EQ(gpu->topology.max_clock_mhz, 1725U);
  EXPECT_EQ(gpu->topology.gpu_counter_khz, 25000U);
  EXPECT_EQ(gpu->topology.num_cp_queues, 24U);
  EXPECT_EQ(gpu->timing.connections, 7U);
}

TEST(GpuDescription, H100HasTheUnitsOfTheProfiles) {
  const auto gpu = load_gpu_description(shipped("h100"));
  ASSERT_TRUE(gpu) << gpu.error().message();
  EXPECT_EQ(gpu->name, "h100");
  EXPECT_EQ(gpu->geometry.cu_count(), 132U);
  EXPECT_GT(gpu->timing.launch_gap_us, 0);
  EXPECT_GT(gpu->power.cu_active_watts, 0);
}

TEST_F(GpuDescriptionErrors, TheShippedTextItselfIsRight) {
  EXPECT_EQ(message_after("mi50", "mi50"), "no error");
}

TEST_F(GpuDescriptionErrors, AFileThatIsNotThere) {
  const auto gpu = load_gpu_description("/nonexistent/gpu.toml");
  ASSERT_FALSE(gpu);
  EXPECT_THAT(gpu.error().message(), HasSubstr("/nonexistent/gpu.toml"));
}

TEST_F(GpuDescriptionErrors, UnknownKeysAndTables) {
  EXPECT_THAT(message_after("[timing]", "[timing]\nlaunch_gap = 1"),
              HasSubstr("unknown key 'timing.launch_gap'"));
  EXPECT_THAT(message_after("[timing]", "[extra]\nx = 1\n[timing]"),
              HasSubstr("unknown key 'extra'"));
}

TEST_F(GpuDescriptionErrors, AnyMissingKeyIsNamed) {
  std::ifstream stream(shipped("mi50"));
  std::string table;
  std::size_t keys = 0;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("[")) table = line.substr(1, line.find(']') - 1) + ".";
    const std::size_t equals = line.find(" = ");
    if (line.starts_with("#") || line.starts_with(" ") || equals == std::string::npos) continue;
    ++keys;
    const std::string key = line.substr(0, equals);
    std::string named = "'";
    named.append(table).append(key).append("' ");
    std::string whole = "\n";
    whole += line;
    std::string of_wrong_type = "\n";
    of_wrong_type += key;
    of_wrong_type += " = false";
    EXPECT_THAT(message_after(whole, ""), HasSubstr(named + "is missing"));
    EXPECT_THAT(message_after(whole, of_wrong_type), HasSubstr(named + "must be"));
  }
  EXPECT_EQ(keys, 32U);
}

TEST_F(GpuDescriptionErrors, ValuesOutOfRange) {
  EXPECT_THAT(message_after("shader_engines = 4 ", "shader_engines = 0 "),
              HasSubstr("'geometry.shader_engines' must be an integer from 1 to 1024"));
  EXPECT_THAT(message_after("shader_engines = 4 ", "shader_engines = -4 "),
              HasSubstr("geometry.shader_engines"));
  EXPECT_THAT(message_after("shader_engines = 4 ", "shader_engines = 4.5 "),
              HasSubstr("geometry.shader_engines"));
  EXPECT_THAT(message_after("shader_engines = 4 ", "shader_engines = 70 "),
              HasSubstr("must be at most 1024"));
  EXPECT_THAT(message_after("barrier_us = ", "barrier_us = -"),
              HasSubstr("'timing.barrier_us' must be a number from 0 to 1000000"));
  EXPECT_THAT(message_after("queue_change_p50_us = ", "queue_change_p50_us = 99"),
              HasSubstr("timing.queue_change_p99_us must be at least"));
  EXPECT_THAT(message_after("idle_watts = 20.0", "idle_watts = nan"), HasSubstr("idle_watts"));
  EXPECT_THAT(message_after("name = \"mi50\"", "name = \"\""), HasSubstr("'name' must be a text"));
}

TEST_F(GpuDescriptionErrors, TextThatIsNotTomlIsNamedByItsLine) {
  EXPECT_THAT(message_after("[geometry]", "[geometry"), HasSubstr("line "));
}

}  // namespace
}  // namespace eclip::model
