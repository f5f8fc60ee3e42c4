// The parts of the FUSE protocol that are newer than the linux/fuse.h of Debian 12 (7.38):
// passthrough, in which the kernel maps a file of the server's choice when a client calls mmap; and
// what all sides of a connection agree on.
#pragma once

#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace eclip::kfdsim {

/// The protocol minor version that introduced passthrough (Linux 6.9).
inline constexpr std::uint32_t passthrough_minor = 40;
/// Bit of flags2 in INIT: FUSE_PASSTHROUGH is bit 37 of the 64 flags.
inline constexpr std::uint32_t passthrough_flag2 = 1U << 5;
/// Bit of open_flags in the OPEN reply.
inline constexpr std::uint32_t open_passthrough = 1U << 7;

struct FuseBackingMap {
  std::int32_t fd;
  std::uint32_t flags;
  std::uint64_t padding;
};
inline constexpr unsigned long ioctl_backing_open = _IOW(FUSE_DEV_IOC_MAGIC, 1, FuseBackingMap);
inline constexpr unsigned long ioctl_backing_close = _IOW(FUSE_DEV_IOC_MAGIC, 2, std::uint32_t);

/// fuse_init_out of 7.40: max_stack_depth is the first of the older header's unused words.
struct FuseInitReply {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t max_readahead;
  std::uint32_t flags;
  std::uint16_t max_background;
  std::uint16_t congestion_threshold;
  std::uint32_t max_write;
  std::uint32_t time_gran;
  std::uint16_t max_pages;
  std::uint16_t map_alignment;
  std::uint32_t flags2;
  std::uint32_t max_stack_depth;
  std::uint32_t unused[6];
};
static_assert(sizeof(FuseInitReply) == sizeof(fuse_init_out));
static_assert(offsetof(FuseInitReply, max_stack_depth) == offsetof(fuse_init_out, unused));

/// fuse_open_out of 7.40: the padding holds the backing id.
struct FuseOpenReply {
  std::uint64_t fh;
  std::uint32_t open_flags;
  std::int32_t backing_id;
};
static_assert(sizeof(FuseOpenReply) == sizeof(fuse_open_out));

/// open_flags for devices without passthrough: pages stay in the page cache from open to open.
inline constexpr std::uint32_t open_page_cache = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;

/// Bytes of one READ or WRITE: what the kernel does without FUSE_MAX_PAGES.
inline constexpr std::uint32_t max_transfer_bytes = 128 * 1024;
/// Room for any request or reply.
inline constexpr std::size_t fuse_buffer_bytes = max_transfer_bytes + 4096;

/// One request of the kernel. Views into the buffer that it was read into.
struct FuseRequest {
  fuse_in_header header;
  std::span<const std::byte> body;

  /// `bytes` has at least the header.
  static FuseRequest of(std::span<const std::byte> bytes) {
    FuseRequest request{};
    std::memcpy(&request.header, bytes.data(), sizeof request.header);
    request.body = bytes.subspan(sizeof request.header);
    return request;
  }
  /// The body's start as a T; zero-extended when the kernel sent less.
  template <class T>
  [[nodiscard]] T as() const {
    T value{};
    const std::size_t size = body.size() < sizeof(T) ? body.size() : sizeof(T);
    std::memcpy(&value, body.data(), size);
    return value;
  }
};

}  // namespace eclip::kfdsim
