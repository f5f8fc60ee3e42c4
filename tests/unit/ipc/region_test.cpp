#include "ipc/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace eclip {
namespace {

struct Payload {
  std::atomic<std::uint64_t> value;
};

Result<Region> make(RegionWriter writer) {
  return Region::create("eclip-test", RegionKind::board, sizeof(Payload), writer, 42);
}

UniqueFd duplicate(const Region& region) {
  return UniqueFd(::dup(region.fd()));
}

TEST(Region, WhatOneSideWritesTheOtherSees) {
  auto mine = make(RegionWriter::both);
  ASSERT_TRUE(mine);
  auto theirs = Region::open(duplicate(*mine), RegionKind::board, sizeof(Payload), true);
  ASSERT_TRUE(theirs) << theirs.error().message();
  mine->payload<Payload>().value = 7;
  EXPECT_EQ(theirs->payload<Payload>().value, 7U);
  EXPECT_EQ(theirs->header().epoch, 42U);
}

TEST(Region, ADaemonsRegionCannotBeWrittenOrResizedByAnotherHolderOfItsDescriptor) {
  auto region = make(RegionWriter::daemon);
  ASSERT_TRUE(region);
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd(), 0), MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::pwrite(region->fd(), "x", 1, 0), -1);
  EXPECT_EQ(::ftruncate(region->fd(), 0), -1);
  EXPECT_EQ(::fcntl(region->fd(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  EXPECT_TRUE(Region::open(duplicate(*region), RegionKind::board, sizeof(Payload), false));
}

TEST(Region, APeersMemoryThatCouldBeTruncatedIsRefused) {
  UniqueFd fd(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  const auto region = Region::open(std::move(fd), RegionKind::board, sizeof(Payload), false);
  ASSERT_FALSE(region);
  EXPECT_EQ(region.error().code, Errc::malformed);
  EXPECT_NE(region.error().message().find("sealed"), std::string::npos);
}

TEST(Region, AnotherKindVersionOrSizeIsRefused) {
  auto region = make(RegionWriter::both);
  ASSERT_TRUE(region);
  EXPECT_EQ(
      Region::open(duplicate(*region), RegionKind::lease_ring, sizeof(Payload), false).error().code,
      Errc::malformed);
  EXPECT_EQ(Region::open(duplicate(*region), RegionKind::board, 1 << 20, false).error().code,
            Errc::malformed);
  auto& header = *reinterpret_cast<RegionHeader*>(region->bytes().data());
  header.major = RegionHeader::layout_major + 1;
  EXPECT_EQ(
      Region::open(duplicate(*region), RegionKind::board, sizeof(Payload), false).error().code,
      Errc::version_mismatch);
  header.magic[0] = 'X';
  EXPECT_EQ(
      Region::open(duplicate(*region), RegionKind::board, sizeof(Payload), false).error().code,
      Errc::malformed);
}

TEST(Region, AMemfdTooShortForAHeaderIsRefused) {
  auto fd = create_sealed_memfd("short", 8);
  ASSERT_TRUE(fd);
  EXPECT_EQ(Region::open(std::move(*fd), RegionKind::board, sizeof(Payload), false).error().code,
            Errc::malformed);
}

}  // namespace
}  // namespace eclip
