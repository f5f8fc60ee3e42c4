#include "tools/kfdsim/shadow_kernels.h"
#include "tools/kfdsim/blit_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <fstream>

#include "tests/unit/kfdsim/gpu_memory_fixture.h"

namespace eclip::kfdsim {
namespace {

using ::testing::HasSubstr;

TEST(ShadowKernelsTest, LoadsWhatALibraryExports) {
  ShadowKernels shadows;
  EXPECT_EQ(shadows.find("increment"), nullptr);
  ASSERT_TRUE(shadows.load(SHADOWS_GOOD));
  ASSERT_NE(shadows.find("increment"), nullptr);
  EXPECT_EQ(shadows.find("decrement"), nullptr);
  EXPECT_EQ(shadows.find(""), nullptr);
}

TEST(ShadowKernelsTest, LibrarysNameWinsOverABuiltInOne) {
  ShadowKernels shadows;
  ASSERT_NE(shadows.find("Fill"), nullptr);
  const auto built_in = shadows.find("Fill")->run;
  EXPECT_NE(shadows.find("Fill")->transfer, nullptr);
  ASSERT_TRUE(shadows.load(SHADOWS_GOOD));
  EXPECT_NE(shadows.find("Fill")->run, built_in);
  EXPECT_EQ(shadows.find("Fill")->transfer, nullptr);
}

TEST(ShadowKernelsTest, MissingLibraryIsNamed) {
  const auto loaded = ShadowKernels().load("/nonexistent/shadows.so");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Errc::not_found);
  EXPECT_THAT(loaded.error().message(), HasSubstr("/nonexistent/shadows.so"));
}

TEST(ShadowKernelsTest, NameWithoutSlashIsAFileHereAndNoSystemLibrary) {
  EXPECT_FALSE(ShadowKernels().load("libc.so.6"));
}

TEST(ShadowKernelsTest, FileThatIsNoLibraryIsAnError) {
  const auto loaded = ShadowKernels().load(HIP_TEST_PROFILE);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr(HIP_TEST_PROFILE));
}

TEST(ShadowKernelsTest, LibraryWithoutShadowsIsAnErrorThatTellsWhatIsMissing) {
  const auto loaded = ShadowKernels().load(SHADOWS_EMPTY);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Errc::malformed);
  EXPECT_THAT(loaded.error().message(), HasSubstr("kfdsim_shadow_kernels"));
}

TEST(ShadowKernelsTest, KernelWithoutFunctionIsNamed) {
  const auto loaded = ShadowKernels().load(SHADOWS_NAMELESS);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("\"half\""));
}

constexpr std::uint64_t arguments_address = 0x1000000;
constexpr std::uint64_t word_address = 0x1000800;

class ShadowLaunchTest : public GpuMemoryTest {
 protected:
  void SetUp() override {
    map(memory, arguments_address, 4096);
    ASSERT_TRUE(shadows.load(SHADOWS_GOOD));
    packet.kernarg_address = arguments_address;
  }
  int increment(ShadowLaunch& launch) { return shadows.find("increment")->run(&launch.launch()); }
  GpuMemory memory{::getpid(), backing, budget, budget};
  ShadowKernels shadows;
  DispatchPacket packet;
};

TEST_F(ShadowLaunchTest, KernelReadsItsArgumentsAndWrites) {
  memory.store(arguments_address, word_address);
  memory.store(word_address, 41);
  ShadowLaunch launch(memory, packet);
  EXPECT_EQ(increment(launch), 0);
  launch.commit();
  EXPECT_EQ(memory.load(word_address), 42U);
  EXPECT_FALSE(launch.unreachable());
}

TEST_F(ShadowLaunchTest, EarlyArgumentsAreSeenInsteadOfTheMemorys) {
  memory.store(word_address, 41);
  const std::array early{word_address};
  ShadowLaunch launch(memory, packet, std::as_bytes(std::span(early)));
  EXPECT_EQ(increment(launch), 0);
  launch.commit();
  EXPECT_EQ(memory.load(word_address), 42U);
}

TEST_F(ShadowLaunchTest, PrivateMemoryIsWrittenOnCommit) {
  constexpr std::uint64_t gpu_address = 0x2000000;
  void* pages = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  auto* word = static_cast<std::uint64_t*>(pages);
  *word = 7;
  std::uint32_t id = 0;
  ASSERT_EQ(memory.allocate(gpu_address, 4096, KFD_IOC_ALLOC_MEM_FLAGS_USERPTR,
                            reinterpret_cast<std::uint64_t>(pages), id),
            0);
  ASSERT_EQ(memory.map(id), 0);
  memory.store(arguments_address, gpu_address);
  ShadowLaunch launch(memory, packet);
  EXPECT_EQ(increment(launch), 0);
  launch.commit();
  EXPECT_EQ(*word, 8U);
  ::munmap(pages, 4096);
}

TEST_F(ShadowLaunchTest, FirstAddressThatIsNotMappedIsKept) {
  memory.store(arguments_address, 0x5000000);
  ShadowLaunch launch(memory, packet);
  EXPECT_NE(increment(launch), 0);
  EXPECT_EQ(launch.unreachable(), 0x5000000U);
  packet.kernarg_address = 0x6000000;
  ShadowLaunch other(memory, packet);
  EXPECT_NE(increment(other), 0);
  EXPECT_EQ(other.unreachable(), 0x6000000U);
}

/// Arguments of HIP's fill kernel (ROCclr, blitcl.cpp).
struct FillArguments {
  std::array<std::uint64_t, 4> buffers;
  std::uint64_t pattern;
  std::uint32_t pattern_elements;
  std::uint64_t offset;
  std::uint64_t size;
};

TEST_F(ShadowLaunchTest, FillWhoseSizeWrapsAroundIsRefused) {
  constexpr std::uint64_t big = 0x10000000000;
  constexpr std::uint64_t big_bytes = std::uint64_t{1} << 34;
  map(memory, big, big_bytes);
  // (2^31 + 1) patterns of 2^33 bytes: 2^64 + 2^33, which looks like 2^33.
  const FillArguments arguments{{0, 0, 0, big}, big, 1U << 30, 0, (1ULL << 31) + 1};
  ASSERT_TRUE(memory.write_as(arguments_address, arguments));
  packet.grid_size = {0xffffffff, 1, 1};
  ShadowLaunch launch(memory, packet);
  EXPECT_NE(shadows.find("__amd_rocclr_fillBufferAligned")->run(&launch.launch()), 0);
}

/// Arguments of HIP's rectangular copies and two-dimensional fill.
struct RectArguments {
  std::uint64_t source;
  std::uint64_t destination;
  std::array<std::uint64_t, 2> padding;
  std::array<std::uint64_t, 4> source_rect;
  std::array<std::uint64_t, 4> destination_rect;
  std::array<std::uint64_t, 4> size;
};
struct Fill2DArguments : FillArguments {
  std::uint64_t height;
  std::uint64_t pitch;
};

TEST_F(ShadowLaunchTest, WorkThatWouldNeverEndIsRefused) {
  // All rows lie over one another.
  const RectArguments rect{word_address, word_address, {}, {}, {}, {1, ~0ULL, ~0ULL, 4}};
  packet.grid_size = {0xffffffff, 0xffffffff, 0xffffffff};
  for (const char* name : {"__amd_rocclr_copyBufferRect", "__amd_rocclr_copyBufferRectAligned"}) {
    ASSERT_TRUE(memory.write_as(arguments_address, rect));
    ShadowLaunch launch(memory, packet);
    EXPECT_NE(shadows.find(name)->run(&launch.launch()), 0) << name;
  }
  const Fill2DArguments fill{{{word_address, 0, 0, 0}, arguments_address, 1, 0, 1}, 0xffffffff, 0};
  ASSERT_TRUE(memory.write_as(arguments_address, fill));
  ShadowLaunch launch(memory, packet);
  EXPECT_NE(shadows.find("__amd_rocclr_fillBufferAligned2D")->run(&launch.launch()), 0);
}

TEST_F(ShadowLaunchTest, FillRepeatsItsPatternToTheEnd) {
  constexpr std::uint64_t target = 0x20000000;
  constexpr std::uint64_t patterns = 50'001;
  constexpr std::uint64_t bytes = 3 * patterns;
  map(memory, target, 1 << 18);
  memory.write_as(word_address, std::array<char, 3>{'a', 'b', 'c'});
  const FillArguments fill{{target, 0, 0, 0}, word_address, 3, 1, patterns};
  ASSERT_TRUE(memory.write_as(arguments_address, fill));
  packet.grid_size = {1 << 20, 1, 1};
  ShadowLaunch launch(memory, packet);
  ASSERT_EQ(shadows.find("__amd_rocclr_fillBufferAligned")->run(&launch.launch()), 0);
  std::string got(bytes + 2, 'x');
  ASSERT_TRUE(memory.read(target, std::as_writable_bytes(std::span(got))));
  EXPECT_EQ(got.front(), 0);
  EXPECT_EQ(got.back(), 0);
  for (std::uint64_t i = 0; i < bytes; ++i) ASSERT_EQ(got[i + 1], "abc"[i % 3]) << i;
}

TEST_F(ShadowLaunchTest, MemoryThatHasToBeCopiedIsBounded) {
  constexpr std::uint64_t half = ShadowLaunch::max_staged_bytes / 2 + 4096;
  constexpr std::uint64_t two_buffers = 0x100000000;
  map(memory, two_buffers, half);
  map(memory, two_buffers + half, half);
  ShadowLaunch launch(memory, packet);
  EXPECT_EQ(launch.launch().write(&launch.launch(), two_buffers, 2 * half), nullptr);
  EXPECT_TRUE(launch.too_large());
  EXPECT_EQ(launch.unreachable(), two_buffers);
  ShadowLaunch small(memory, packet);
  EXPECT_NE(small.launch().write(&small.launch(), two_buffers + half - 8, 16), nullptr);
  EXPECT_FALSE(small.too_large());
}

TEST(StreamWaitTest, ComparesTheMaskedWord) {
  StreamWait wait{.word32 = 8, .word64 = 0, .value = 0x10, .comparison = 0, .mask = 0xFF};
  EXPECT_TRUE(wait.holds(0x110));
  EXPECT_FALSE(wait.holds(0x10F));
  wait.comparison = StreamWait::equal;
  EXPECT_TRUE(wait.holds(0x310));
  EXPECT_FALSE(wait.holds(0x311));
  wait.comparison = StreamWait::bits_and;
  EXPECT_TRUE(wait.holds(0x31));
  EXPECT_FALSE(wait.holds(0x21));
  wait.comparison = StreamWait::bits_nor;
  EXPECT_TRUE(wait.holds(0xEE));
  EXPECT_FALSE(wait.holds(0xEF));
  wait.comparison = 7;
  EXPECT_FALSE(wait.holds(0x10)) << "an unknown comparison";
  StreamWait wide{.word32 = 0, .word64 = 8, .value = 1ULL << 40, .comparison = 0, .mask = ~0ULL};
  EXPECT_TRUE(wide.holds(1ULL << 40));
  EXPECT_FALSE(wide.holds(UINT32_MAX));
}

TEST(DispatchPacketTest, WorkgroupsDoNotWrapAround) {
  DispatchPacket large;
  large.workgroup_size = {1, 1, 1};
  large.grid_size = {1U << 31, 1U << 31, 4};
  EXPECT_EQ(large.workgroups(), ~0ULL);
  large.grid_size = {1U << 31, 1U << 31, 1};
  EXPECT_EQ(large.workgroups(), 1ULL << 62);
}

}  // namespace
}  // namespace eclip::kfdsim
