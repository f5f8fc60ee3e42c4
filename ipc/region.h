// Shared-memory regions: sealed memfds that start with a RegionHeader and travel by SCM_RIGHTS.
#pragma once

#include <array>
#include <atomic>
#include <boost/interprocess/mapped_region.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip {

/// What a region holds; part of its header.
enum class RegionKind : std::uint32_t {
  board = 1,           ///< ipc/board.h; written by eclipd
  worker_state = 2,    ///< ipc/worker_regions.h; written by eclipd
  worker_request = 3,  ///< ipc/worker_regions.h; written by the worker
  lease_ring = 4,      ///< ipc/lease_ring.h; written by the worker
  active_set = 5,      ///< ipc/active_set.h; written by all workers and eclipd
  lease_rings = 6,     ///< ipc/lease_ring.h, one for each scheduled lease; written by the worker
};

/// First bytes of every region. eclipd writes it whole and then stores `state` = ready with
/// release; readers load `state` with acquire first.
struct RegionHeader {
  static constexpr std::array<char, 8> expected_magic{'E', 'C', 'L', 'I', 'P', 'S', 'H', 'M'};
  static constexpr std::uint16_t layout_major = 4;  ///< readers refuse another major
  static constexpr std::uint16_t layout_minor = 0;  ///< raised by compatible additions
  static constexpr std::uint32_t state_ready = 1;

  std::array<char, 8> magic;
  std::uint16_t major;
  std::uint16_t minor;
  std::uint32_t header_bytes;  ///< the payload starts here
  std::uint64_t region_bytes;  ///< header and payload
  std::array<std::uint8_t, 16> boot_id;
  std::uint64_t epoch;  ///< of the eclipd that made it: differs after each start
  RegionKind kind;
  std::atomic<std::uint32_t> state;
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(RegionHeader) == 56);
static_assert(offsetof(RegionHeader, region_bytes) == 16);
static_assert(offsetof(RegionHeader, state) == 52);

/// Bytes before the payload of every region; the payload is cache-line aligned.
inline constexpr std::size_t region_payload_offset = 64;

/// Who may write a region after eclipd has mapped it.
enum class RegionWriter {
  daemon,  ///< eclipd alone: the memfd carries F_SEAL_FUTURE_WRITE
  both,
};

/// A mapped region and its memfd.
class Region {
 public:
  /// Makes and maps a region, its payload zeroed; its size can change no more (sealed).
  /// Errors: the system's, with the region's name.
  static Result<Region> create(const std::string& name, RegionKind kind, std::size_t payload_bytes,
                               RegionWriter writer, std::uint64_t epoch);
  /// Maps a region received from a peer, after checking seals, size, magic, version and kind.
  /// `writable` must be false for regions of RegionWriter::daemon. Errors: Errc::malformed,
  /// Errc::version_mismatch.
  static Result<Region> open(UniqueFd fd, RegionKind kind, std::size_t payload_bytes,
                             bool writable);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const RegionHeader& header() const;
  /// All bytes, header included.
  [[nodiscard]] std::span<std::byte> bytes() const;
  /// The payload as a T; T's size was given at create or open.
  template <class T>
  [[nodiscard]] T& payload() const {
    return *reinterpret_cast<T*>(bytes().data() + region_payload_offset);
  }

 private:
  Region(UniqueFd fd, boost::interprocess::mapped_region mapping)
      : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  UniqueFd fd_;
  boost::interprocess::mapped_region mapping_;
};

/// A memfd of exactly `bytes` bytes that can neither shrink nor grow. Errors: the system's.
Result<UniqueFd> create_sealed_memfd(const std::string& name, std::size_t bytes);

/// The same with these bytes. Errors: the system's.
Result<UniqueFd> sealed_memfd_of(const std::string& name, std::span<const std::byte> bytes);

/// Fills `into` from the beginning of a peer's memfd; `what` names it in errors. Errc::malformed:
/// it is no memfd, of which alone it is certain that reading does not block, or it is shorter.
Result<void> read_memfd(int fd, std::span<std::byte> into, const std::string& what);

/// Maps all of a memfd. Errors: the system's.
Result<boost::interprocess::mapped_region> map_memfd(int fd, bool writable, std::size_t bytes);

}  // namespace eclip
