// Memory that COMMAND and the GPU share: it keeps what was written, and is nobody else's.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"
#include "tests/integration/kfdsim/kfdsim_refusal.h"

namespace eclip::test {
namespace {

using KfdsimMapping = InsideKfdsim;

constexpr std::size_t page = 4096;
constexpr std::size_t pages = 1024;

std::size_t resident_pages(const GpuBuffer& buffer) {
  std::vector<unsigned char> resident(pages);
  EXPECT_EQ(::mincore(buffer.cpu(), pages * page, resident.data()), 0);
  return static_cast<std::size_t>(
      std::ranges::count_if(resident, [](unsigned char in) { return (in & 1U) != 0; }));
}

TEST_F(KfdsimMapping, PagesThatTheKernelEvictsComeBack) {
  const GpuBuffer buffer(GpuBuffer::Kind::system, pages * page);
  for (std::size_t i = 0; i < pages; ++i) *buffer.as<std::uint64_t>(i * page) = i + 1;
  ASSERT_EQ(::msync(buffer.cpu(), pages * page, MS_SYNC), 0);
  ASSERT_EQ(::madvise(buffer.cpu(), pages * page, MADV_PAGEOUT), 0);
  // Memfds have nowhere to go without swap.
  if (kfdsim_mapping() == "page-cache") {
    EXPECT_LT(resident_pages(buffer), pages);
  }
  for (std::size_t i = 0; i < pages; ++i) {
    ASSERT_EQ(*buffer.as<std::uint64_t>(i * page), i + 1) << "page " << i;
  }
}

TEST_F(KfdsimMapping, TheGpuSeesPagesThatWereEvicted) {
  const auto kernel = kernel_of(30, 20, true);
  const LoadedKernels loaded({&kernel, 1});
  const GpuBuffer words(GpuBuffer::Kind::vram, page);
  const GpuBuffer kernargs(GpuBuffer::Kind::system, page);
  *words.as<std::uint64_t>() = 7;
  auto* arguments = kernargs.as<replay::MixKernarg>();
  *arguments = {words.gpu(), 1, 1, {}};
  arguments->inputs[0] = words.gpu();
  for (const GpuBuffer* buffer : {&words, &kernargs}) {
    ASSERT_EQ(::msync(buffer->cpu(), page, MS_SYNC), 0);
    ASSERT_EQ(::madvise(buffer->cpu(), page, MADV_PAGEOUT), 0);
  }
  const GpuSignal done;
  GpuQueue queue;
  queue.dispatch(loaded.object(0), &done, kernargs.gpu());
  ASSERT_TRUE(done.wait());
  const std::uint64_t before = 7;
  EXPECT_EQ(*words.as<std::uint64_t>(), replay::mix(1, {&before, 1}));
}

TEST_F(KfdsimMapping, FreedMemoryComesBackZeroed) {
  for (int round = 0; round < 3; ++round) {
    const GpuBuffer buffer(GpuBuffer::Kind::vram, pages * page);
    for (std::size_t i = 0; i < pages; ++i) {
      ASSERT_EQ(*buffer.as<std::uint64_t>(i * page), 0U) << "page " << i << ", round " << round;
      *buffer.as<std::uint64_t>(i * page) = 4711;
    }
  }
}

TEST_F(KfdsimMapping, TruncationTakesNothingAway) {
  const GpuBuffer buffer(GpuBuffer::Kind::vram, page);
  *buffer.as<std::uint64_t>() = 4711;
  const int fd = ::open("/dev/dri/renderD128", O_RDWR | O_TRUNC | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  [[maybe_unused]] const int refused_or_not = ::ftruncate(fd, 0);
  EXPECT_NE(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4LL << 32, 1 << 20), 0);
  ::close(fd);
  EXPECT_EQ(*buffer.as<std::uint64_t>(), 4711U);
}

TEST_F(KfdsimMapping, TheSimulatorsOwnWayToTheMemoryIsClosed) {
  gpu_node();
  for (const char* device : {"/dev/kfd", "/dev/dri/renderD128"}) {
    struct stat status {};
    ASSERT_EQ(::stat(device, &status), 0);
    const std::string path = "/dev/kfdsim/fs/memory/" + std::to_string(status.st_ino);
    EXPECT_EQ(::open(path.c_str(), O_RDWR), -1) << path;
    EXPECT_EQ(::open(path.c_str(), O_RDONLY), -1) << path;
    EXPECT_EQ(::open(path.c_str(), O_RDWR | O_CREAT, 0600), -1) << path;
  }
}

}  // namespace
}  // namespace eclip::test
