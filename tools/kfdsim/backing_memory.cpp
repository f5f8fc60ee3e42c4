#include "tools/kfdsim/backing_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <utility>

namespace eclip::kfdsim {

namespace {

constexpr int readable_and_writable = PROT_READ | PROT_WRITE;

Result<std::byte*> reserve_addresses() {
  void* base = ::mmap(nullptr, BackingMemory::size_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base != MAP_FAILED) return static_cast<std::byte*>(base);
  return fail_errno(errno,
                    "cannot map a client's GPU memory: raise the address space limit "
                    "(ulimit -v unlimited)");
}

bool map_over(std::byte* base, const UniqueFd& file, std::uint64_t from, std::uint64_t to) {
  return ::mmap(base + from, to - from, readable_and_writable,
                MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file.get(),
                static_cast<off_t>(from)) != MAP_FAILED;
}

void punch(const UniqueFd& file, std::uint64_t offset, std::uint64_t bytes) {
  ::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
              static_cast<off_t>(bytes));
}

void replace_lost_page(int signal, siginfo_t* info, void* /*context*/) {
  auto* const page = static_cast<std::byte*>(info->si_addr) -
                     reinterpret_cast<std::uintptr_t>(info->si_addr) % page_bytes;
  if (info->si_code == BUS_ADRERR &&
      ::mmap(page, page_bytes, readable_and_writable, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != MAP_FAILED) {
    return;
  }
  ::signal(signal, SIG_DFL);  // the instruction is tried again, and kills
}

}  // namespace

Result<BackingMemory> BackingMemory::create() {
  UniqueFd fd(::memfd_create("kfdsim", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "cannot create a memfd for a client's GPU memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return fail_errno(errno,
                      "cannot size a client's GPU memory: raise the file size limit "
                      "(ulimit -f unlimited)");
  }
  // Without the seals a client that truncates its /dev/kfd would crash the simulator.
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  auto base = reserve_addresses();
  if (!base) return tl::unexpected<Error>(std::move(base.error()));
  BackingMemory memory(std::move(fd), UniqueFd(), *base);
  if (map_over(*base, memory.low_, 0, size_bytes)) return memory;
  return fail_errno(errno, "cannot map a client's GPU memory");
}

Result<BackingMemory> BackingMemory::of_devices(UniqueFd kfd, UniqueFd render) {
  auto base = reserve_addresses();
  if (!base) return tl::unexpected<Error>(std::move(base.error()));
  BackingMemory memory(std::move(kfd), std::move(render), *base);
  if (map_over(*base, memory.low_, 0, first_buffer) &&
      map_over(*base, memory.high_, first_buffer, size_bytes)) {
    return memory;
  }
  return fail_errno(errno, "cannot map a client's device files");
}

BackingMemory::BackingMemory(UniqueFd low, UniqueFd high, std::byte* base)
    : low_(std::move(low)), high_(std::move(high)), base_(base) {
  free_.emplace(first_buffer, size_bytes - first_buffer);
}

BackingMemory::BackingMemory(BackingMemory&& other) noexcept
    : low_(std::move(other.low_)),
      high_(std::move(other.high_)),
      base_(std::exchange(other.base_, nullptr)),
      free_(std::move(other.free_)) {}

BackingMemory::~BackingMemory() {
  if (base_ != nullptr) ::munmap(base_, size_bytes);
}

std::optional<std::uint64_t> BackingMemory::allocate(std::uint64_t bytes) {
  bytes = page_align(bytes);
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->second < bytes) continue;
    const std::uint64_t offset = range->first;
    const std::uint64_t rest = range->second - bytes;
    free_.erase(range);
    if (rest != 0) free_.emplace(offset + bytes, rest);
    return offset;
  }
  return std::nullopt;
}

void BackingMemory::release(std::uint64_t offset, std::uint64_t bytes) {
  bytes = page_align(bytes);
  clear(offset, bytes);
  auto [range, inserted] = free_.emplace(offset, bytes);
  const auto next = std::next(range);
  if (next != free_.end() && range->first + range->second == next->first) {
    range->second += next->second;
    free_.erase(next);
  }
  if (range == free_.begin()) return;
  const auto previous = std::prev(range);
  if (previous->first + previous->second == range->first) {
    previous->second += range->second;
    free_.erase(range);
  }
}

void BackingMemory::clear(std::uint64_t offset, std::uint64_t bytes) {
  punch(high_ && offset >= first_buffer ? high_ : low_, offset, bytes);
}

void BackingMemory::clear_all() {
  punch(low_, 0, size_bytes);
  if (high_) punch(high_, 0, size_bytes);
}

void survive_lost_pages() {
  struct sigaction action {};
  action.sa_sigaction = replace_lost_page;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace eclip::kfdsim
