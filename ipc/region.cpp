#include "ipc/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>

namespace eclip {
namespace {

namespace bip = boost::interprocess;

constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW;

/// What boost::interprocess::mapped_region asks of a thing to map.
struct Mappable {
  int fd;
  [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const {
    return bip::ipcdetail::mapping_handle_from_file_handle(fd);
  }
};

Result<std::array<std::uint8_t, 16>> read_boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  if (!std::getline(file, text)) return fail_errno(ENOENT, "read /proc/sys/kernel/random/boot_id");
  std::erase(text, '-');
  std::array<std::uint8_t, 16> id{};
  if (text.size() != 32) return fail(Errc::malformed, "the boot id is not 32 hex digits: " + text);
  for (std::size_t i = 0; i < id.size(); ++i)
    id[i] = static_cast<std::uint8_t>(std::stoul(text.substr(i * 2, 2), nullptr, 16));
  return id;
}

}  // namespace

Result<UniqueFd> create_sealed_memfd(const std::string& name, std::size_t bytes) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "create shared memory '" + name + "'");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "size shared memory '" + name + "'");
  if (::fcntl(fd.get(), F_ADD_SEALS, size_seals) != 0)
    return fail_errno(errno, "seal shared memory '" + name + "'");
  return fd;
}

Result<UniqueFd> sealed_memfd_of(const std::string& name, std::span<const std::byte> bytes) {
  auto memfd = create_sealed_memfd(name, bytes.size());
  if (!memfd) return memfd;
  for (std::size_t done = 0; done < bytes.size();) {
    const auto rest = bytes.subspan(done);
    const ssize_t size = ::pwrite(memfd->get(), rest.data(), rest.size(), static_cast<off_t>(done));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return fail_errno(size < 0 ? errno : EIO, "fill a memfd for " + name);
    done += static_cast<std::size_t>(size);
  }
  return memfd;
}

Result<void> read_memfd(int fd, std::span<std::byte> into, const std::string& what) {
  // The kernel itself answers this question, whatever file system the descriptor comes from.
  if (::fcntl(fd, F_GET_SEALS) < 0) return fail(Errc::malformed, what + " must come as a memfd");
  for (std::size_t done = 0; done < into.size();) {
    const auto rest = into.subspan(done);
    const ssize_t size = ::pread(fd, rest.data(), rest.size(), static_cast<off_t>(done));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0)
      return fail(Errc::malformed, what + "'s memfd ends after " + std::to_string(done) + " of " +
                                       std::to_string(into.size()) + " bytes");
    done += static_cast<std::size_t>(size);
  }
  return {};
}

Result<bip::mapped_region> map_memfd(int fd, bool writable, std::size_t bytes) {
  try {
    return bip::mapped_region(Mappable{fd}, writable ? bip::read_write : bip::read_only, 0, bytes);
  } catch (const bip::interprocess_exception& exception) {
    return fail_errno(exception.get_native_error(), "map shared memory");
  }
}

Result<Region> Region::create(const std::string& name, RegionKind kind, std::size_t payload_bytes,
                              RegionWriter writer, std::uint64_t epoch) {
  const std::size_t bytes = region_payload_offset + payload_bytes;
  auto fd = create_sealed_memfd(name, bytes);
  if (!fd) return tl::unexpected(fd.error());
  auto mapping = map_memfd(fd->get(), true, bytes);
  if (!mapping) return tl::unexpected(mapping.error());
  // Only after our own mapping: the seal forbids new writable ones, not those that exist.
  const int more_seals = F_SEAL_SEAL | (writer == RegionWriter::daemon ? F_SEAL_FUTURE_WRITE : 0);
  if (::fcntl(fd->get(), F_ADD_SEALS, more_seals) != 0)
    return fail_errno(errno, "seal shared memory '" + name + "'");
  const auto boot_id = read_boot_id();
  if (!boot_id) return tl::unexpected(boot_id.error());
  auto* header = new (mapping->get_address()) RegionHeader{
      .magic = RegionHeader::expected_magic,
      .major = RegionHeader::layout_major,
      .minor = RegionHeader::layout_minor,
      .header_bytes = region_payload_offset,
      .region_bytes = bytes,
      .boot_id = *boot_id,
      .epoch = epoch,
      .kind = kind,
      .state = 0,
  };
  header->state.store(RegionHeader::state_ready, std::memory_order_release);
  return Region(std::move(*fd), std::move(*mapping));
}

Result<Region> Region::open(UniqueFd fd, RegionKind kind, std::size_t payload_bytes,
                            bool writable) {
  const std::size_t bytes = region_payload_offset + payload_bytes;
  // Without the size seals the peer could truncate the region under us: SIGBUS.
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & size_seals) != size_seals)
    return fail(Errc::malformed, "the peer's shared memory is not sealed against resizing");
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "examine shared memory");
  if (status.st_size < 0 || static_cast<std::size_t>(status.st_size) < sizeof(RegionHeader))
    return fail(Errc::malformed, "the peer's shared memory is too short for a header");
  auto mapping = map_memfd(fd.get(), writable, static_cast<std::size_t>(status.st_size));
  if (!mapping) return tl::unexpected(mapping.error());
  const auto& header = *static_cast<const RegionHeader*>(mapping->get_address());
  if (header.state.load(std::memory_order_acquire) != RegionHeader::state_ready ||
      header.magic != RegionHeader::expected_magic)
    return fail(Errc::malformed, "the peer's shared memory has no ECLIP header");
  if (header.major != RegionHeader::layout_major)
    return fail(Errc::version_mismatch, "shared-memory layout " + std::to_string(header.major) +
                                            "; this side speaks " +
                                            std::to_string(RegionHeader::layout_major) +
                                            ": install the same version of eclipd and libeclip");
  if (header.kind != kind || header.header_bytes != region_payload_offset ||
      header.region_bytes != static_cast<std::size_t>(status.st_size) ||
      static_cast<std::size_t>(status.st_size) < bytes)
    return fail(Errc::malformed, "the peer's shared memory is of another kind or size");
  return Region(std::move(fd), std::move(*mapping));
}

const RegionHeader& Region::header() const {
  return *static_cast<const RegionHeader*>(mapping_.get_address());
}

std::span<std::byte> Region::bytes() const {
  return {static_cast<std::byte*>(mapping_.get_address()), mapping_.get_size()};
}

}  // namespace eclip
