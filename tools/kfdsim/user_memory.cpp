#include "tools/kfdsim/user_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

namespace eclip::kfdsim {
namespace {

struct MapsLine {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  std::string permissions;
  std::string path;
};

std::optional<MapsLine> parse_maps_line(const std::string& text) {
  MapsLine line;
  char permissions[5] = {};
  int path_at = 0;
  if (std::sscanf(text.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %*s %n", &line.start,
                  &line.end, permissions, &line.offset, &path_at) != 4) {
    return std::nullopt;
  }
  line.permissions = permissions;
  if (path_at > 0) line.path = text.substr(static_cast<std::size_t>(path_at));
  return line;
}

std::optional<MapsLine> map_around(pid_t pid, std::uint64_t address) {
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string text; std::getline(maps, text);) {
    auto line = parse_maps_line(text);
    if (line && line->start <= address && address < line->end) return line;
  }
  return std::nullopt;
}

/// A range of another process: never a pointer of this one.
iovec in_client(std::uint64_t address, std::size_t bytes) {
  return {reinterpret_cast<void*>(address), bytes};  // NOLINT(performance-no-int-to-ptr)
}

// MAP_SHARED | MAP_ANONYMOUS looks like a deleted /dev/zero.
bool is_anonymous(const MapsLine& line) {
  return line.path == "/dev/zero (deleted)";
}
bool is_memfd(const MapsLine& line) {
  return line.path.starts_with("/memfd:");
}

/// Whether the file has, and will always have, the bytes up to `end`.
bool stays_as_long_as(int fd, const MapsLine& line, std::uint64_t end) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || static_cast<std::uint64_t>(status.st_size) < end) return false;
  if (is_anonymous(line)) return true;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

}  // namespace

bool read_process(pid_t pid, std::uint64_t address, std::span<std::byte> to) {
  const iovec local{to.data(), to.size()};
  const iovec remote = in_client(address, to.size());
  return ::process_vm_readv(pid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(to.size());
}

bool write_process(pid_t pid, std::uint64_t address, std::span<const std::byte> from) {
  const iovec local{const_cast<std::byte*>(from.data()), from.size()};
  const iovec remote = in_client(address, from.size());
  return ::process_vm_writev(pid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(from.size());
}

UserAddressSpace::UserAddressSpace(pid_t pid)
    : memory_(::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC)) {}

bool UserAddressSpace::lives() const {
  // Of an address space that is gone nothing can be read; of another, page 0 is an error.
  std::byte byte{};
  return memory_.get() >= 0 && ::pread(memory_.get(), &byte, 1, 0) != 0;
}

SharedUserPages::SharedUserPages(pid_t pid, std::uint64_t address, std::uint64_t bytes) {
  const auto line = map_around(pid, address);
  if (!line || bytes > line->end - address || line->permissions.size() < 4 ||
      line->permissions[3] != 's' || line->permissions[1] != 'w' ||
      !(is_anonymous(*line) || is_memfd(*line))) {
    return;
  }
  const std::uint64_t offset = line->offset + (address - line->start);
  const std::string link = fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, line->start, line->end);
  const UniqueFd fd(::open(link.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd || !stays_as_long_as(fd.get(), *line, offset + bytes)) return;
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(),
                      static_cast<off_t>(offset));
  if (base == MAP_FAILED) return;
  base_ = static_cast<std::byte*>(base);
  bytes_ = bytes;
}

SharedUserPages::~SharedUserPages() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

SharedUserPages::SharedUserPages(SharedUserPages&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

SharedUserPages& SharedUserPages::operator=(SharedUserPages&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace eclip::kfdsim
