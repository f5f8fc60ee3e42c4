// What software sees of the simulated GPU before it uses it: topology, DRM, memory, clocks,
// sensors.
#include <amdgpu.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

using KfdsimDevice = InsideKfdsim;

constexpr const char* hwmon = "/sys/class/drm/renderD128/device/hwmon/hwmon0/";

std::string content_of(const std::string& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

TEST_F(KfdsimDevice, TopologyIsThatOfTheDescription) {
  HsaNodeProperties properties{};
  ASSERT_EQ(hsaKmtGetNodeProperties(gpu_node(), &properties), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(properties.NumFComputeCores / properties.NumSIMDPerCU, 60U);
  EXPECT_EQ(properties.NumShaderBanks, 4U);
  EXPECT_EQ(properties.NumCpQueues, 24U);
  EXPECT_EQ(properties.EngineId.ui32.Major, 9U);
  EXPECT_EQ(properties.EngineId.ui32.Stepping, 6U);
  EXPECT_EQ(properties.DeviceId, 0x66a1);
  HsaMemoryProperties bank{};
  ASSERT_EQ(hsaKmtGetNodeMemoryProperties(gpu_node(), 1, &bank), HSAKMT_STATUS_SUCCESS);
  // A copy: libhsakmt packs its structures to 4 bytes, and references must be aligned.
  const std::uint64_t bytes = bank.SizeInBytes;
  EXPECT_EQ(bytes, 34342961152U);
}

TEST_F(KfdsimDevice, NamesSaySimulated) {
  HsaNodeProperties properties{};
  ASSERT_EQ(hsaKmtGetNodeProperties(gpu_node(), &properties), HSAKMT_STATUS_SUCCESS);
  std::string name;
  for (const HSAuint16* c = properties.MarketingName; *c != 0; ++c) {
    name += static_cast<char>(*c);
  }
  EXPECT_NE(name.find("simulated"), std::string::npos) << name;
  EXPECT_EQ(content_of("/sys/class/kfd/kfd/topology/nodes/1/name"), "mi50 simulated");
}

TEST_F(KfdsimDevice, LibdrmOpensTheRenderNode) {
  const int fd = ::open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0) << std::strerror(errno);
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  amdgpu_device_handle device = nullptr;
  ASSERT_EQ(amdgpu_device_initialize(fd, &major, &minor, &device), 0);
  amdgpu_gpu_info info{};
  ASSERT_EQ(amdgpu_query_gpu_info(device, &info), 0);
  EXPECT_EQ(info.gpu_counter_freq, 25'000U);
  EXPECT_EQ(info.asic_id, 0x66a1U);
  EXPECT_EQ(info.cu_active_number, 60U);
  amdgpu_device_deinitialize(device);
  ::close(fd);
}

TEST_F(KfdsimDevice, MemoryOfEachKindIsZeroedWritableAndFreed) {
  using Kind = GpuBuffer::Kind;
  for (const Kind kind : {Kind::system, Kind::paged, Kind::vram, Kind::registered}) {
    constexpr std::size_t bytes = 3 * 4096;
    for (int round = 0; round < 3; ++round) {
      const GpuBuffer buffer(kind, bytes);
      for (std::size_t i = 0; i < bytes; i += 512) {
        ASSERT_EQ(buffer.cpu()[i], std::byte{0}) << "kind " << static_cast<int>(kind);
        buffer.cpu()[i] = std::byte{0x5a};
        ASSERT_EQ(buffer.cpu()[i], std::byte{0x5a});
      }
    }
  }
}

TEST_F(KfdsimDevice, VramEnds) {
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  void* memory = nullptr;
  EXPECT_NE(hsaKmtAllocMemory(gpu_node(), 33ULL << 30, flags, &memory), HSAKMT_STATUS_SUCCESS);
  ASSERT_EQ(hsaKmtAllocMemory(gpu_node(), 20ULL << 30, flags, &memory), HSAKMT_STATUS_SUCCESS);
  void* second = nullptr;
  EXPECT_NE(hsaKmtAllocMemory(gpu_node(), 20ULL << 30, flags, &second), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(hsaKmtFreeMemory(memory, 20ULL << 30), HSAKMT_STATUS_SUCCESS);
  ASSERT_EQ(hsaKmtAllocMemory(gpu_node(), 20ULL << 30, flags, &second), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(hsaKmtFreeMemory(second, 20ULL << 30), HSAKMT_STATUS_SUCCESS);
}

TEST_F(KfdsimDevice, ClockCountersAdvanceTogether) {
  HsaClockCounters first{};
  HsaClockCounters second{};
  ASSERT_EQ(hsaKmtGetClockCounters(gpu_node(), &first), HSAKMT_STATUS_SUCCESS);
  ASSERT_TRUE(eventually([&] {
    return hsaKmtGetClockCounters(gpu_node(), &second) == HSAKMT_STATUS_SUCCESS &&
           second.SystemClockCounter - first.SystemClockCounter > 50'000'000;
  }));
  EXPECT_EQ(second.SystemClockFrequencyHz, 1'000'000'000U);
  const double gpu_s =
      static_cast<double>(second.GPUClockCounter - first.GPUClockCounter) / 25'000'000;
  const double cpu_s =
      static_cast<double>(second.SystemClockCounter - first.SystemClockCounter) / 1e9;
  EXPECT_NEAR(gpu_s, cpu_s, 0.01);
}

TEST_F(KfdsimDevice, SensorsAreInHwmonUnits) {
  EXPECT_EQ(content_of(std::string(hwmon) + "name"), "amdgpu");
  const auto sensor = [](const char* name) {
    return std::stoull(content_of(std::string(hwmon) + name));
  };
  EXPECT_EQ(sensor("power1_average"), 20'000'000U) << "idle power of the mi50, in microwatt";
  const auto energy = sensor("energy1_input");
  EXPECT_TRUE(eventually([&] { return sensor("energy1_input") > energy; }));
  const auto kernel = kernel_of(50'000, 50'000);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done;
  GpuQueue queue;
  queue.dispatch(loaded.object(0), &done);
  EXPECT_TRUE(eventually([&] { return sensor("power1_average") > 200'000'000; }));
  EXPECT_TRUE(done.wait());
}

}  // namespace
}  // namespace eclip::test
