#include "tools/kfdsim/gpu_memory.h"

#include <linux/kfd_ioctl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

namespace eclip::kfdsim {
namespace {

constexpr std::uint64_t last_address = 1ULL << 47;

std::optional<MemoryKind> kind_of(std::uint32_t flags) {
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_VRAM) != 0) return MemoryKind::vram;
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_GTT) != 0) return MemoryKind::gtt;
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_USERPTR) != 0) return MemoryKind::userptr;
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_DOORBELL) != 0) return MemoryKind::doorbell;
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_MMIO_REMAP) != 0) return MemoryKind::mmio;
  return std::nullopt;
}

std::uint64_t* budget_of(MemoryKind kind, MemoryBudget& budget) {
  switch (kind) {
    case MemoryKind::vram:
      return &budget.vram_bytes;
    case MemoryKind::gtt:
    case MemoryKind::userptr:
      return &budget.system_bytes;
    case MemoryKind::doorbell:
    case MemoryKind::mmio:
      break;
  }
  return nullptr;
}

}  // namespace

GpuMemory::GpuMemory(pid_t pid, BackingMemory& backing, MemoryBudget& budget, MemoryBudget limits)
    : pid_(pid), backing_(backing), budget_(budget), own_budget_(limits) {}

GpuMemory::~GpuMemory() {
  for (auto& [id, buffer] : buffers_) give_back(buffer);
}

int GpuMemory::allocate(std::uint64_t gpu_address, std::uint64_t bytes, std::uint32_t flags,
                        std::uint64_t user_address, std::uint32_t& id) {
  const auto kind = kind_of(flags);
  if (!kind || bytes == 0 || bytes > last_address || gpu_address % page_bytes != 0 ||
      gpu_address > last_address - bytes) {
    return EINVAL;
  }
  Buffer buffer;
  buffer.kind = *kind;
  buffer.gpu_address = gpu_address;
  if ((flags & KFD_IOC_ALLOC_MEM_FLAGS_AQL_QUEUE_MEM) != 0) {
    buffer.copies = 2;
    bytes /= 2;
  }
  if (bytes == 0) return EINVAL;
  buffer.bytes = page_align(bytes);
  if (*kind == MemoryKind::doorbell && bytes != BackingMemory::doorbell_bytes) return EINVAL;
  if (*kind == MemoryKind::mmio && bytes != page_bytes) return EINVAL;

  std::uint64_t* left = budget_of(*kind, budget_);
  std::uint64_t* own_left = budget_of(*kind, own_budget_);
  if (left != nullptr && std::min(*left, *own_left) < buffer.bytes) return ENOMEM;
  switch (*kind) {
    case MemoryKind::vram:
    case MemoryKind::gtt:
      if (const auto offset = backing_.allocate(buffer.bytes)) {
        buffer.offset = *offset;
      } else {
        return ENOMEM;
      }
      break;
    case MemoryKind::userptr: {
      if (user_address == 0 || user_address % page_bytes != 0) return EINVAL;
      std::byte probe{};
      if (!read_process(pid_, user_address, {&probe, 1})) return EFAULT;
      buffer.user_address = user_address;
      buffer.shared = SharedUserPages(pid_, user_address, buffer.bytes);
      break;
    }
    case MemoryKind::doorbell:
      buffer.offset = BackingMemory::doorbell_offset;
      break;
    case MemoryKind::mmio:
      buffer.offset = BackingMemory::mmio_offset;
      break;
  }
  if (left != nullptr) {
    *left -= buffer.bytes;
    *own_left -= buffer.bytes;
  }
  if (*kind == MemoryKind::vram) vram_bytes_ += buffer.bytes;
  id = next_id_++;
  buffers_.emplace(id, std::move(buffer));
  return 0;
}

void GpuMemory::give_back(Buffer& buffer) {
  if (buffer.kind == MemoryKind::vram || buffer.kind == MemoryKind::gtt) {
    backing_.release(buffer.offset, buffer.bytes);
  }
  if (buffer.kind == MemoryKind::vram) vram_bytes_ -= buffer.bytes;
  for (MemoryBudget* budget : {&budget_, &own_budget_}) {
    if (std::uint64_t* left = budget_of(buffer.kind, *budget)) *left += buffer.bytes;
  }
}

int GpuMemory::free(std::uint32_t id) {
  const auto found = buffers_.find(id);
  if (found == buffers_.end()) return EINVAL;
  if (found->second.mapped) return EBUSY;
  give_back(found->second);
  buffers_.erase(found);
  return 0;
}

int GpuMemory::map(std::uint32_t id) {
  const auto found = buffers_.find(id);
  if (found == buffers_.end()) return EINVAL;
  Buffer& buffer = found->second;
  if (buffer.mapped) return 0;
  const std::uint64_t end = buffer.gpu_address + buffer.bytes * buffer.copies;
  const auto next = mapped_.lower_bound(buffer.gpu_address);
  if (next != mapped_.end() && next->first < end) return EINVAL;
  if (next != mapped_.begin()) {
    const Buffer& before = buffers_.at(std::prev(next)->second);
    if (before.gpu_address + before.bytes * before.copies > buffer.gpu_address) return EINVAL;
  }
  mapped_.emplace(buffer.gpu_address, id);
  buffer.mapped = true;
  return 0;
}

int GpuMemory::unmap(std::uint32_t id) {
  const auto found = buffers_.find(id);
  if (found == buffers_.end()) return EINVAL;
  if (found->second.mapped) mapped_.erase(found->second.gpu_address);
  found->second.mapped = false;
  return 0;
}

std::uint64_t GpuMemory::vram_bytes_left() const {
  return std::min(budget_.vram_bytes, own_budget_.vram_bytes);
}

void GpuMemory::lose_vram() {
  for (const auto& [id, buffer] : buffers_) {
    if (buffer.kind == MemoryKind::vram) backing_.clear(buffer.offset, buffer.bytes);
  }
}

const GpuMemory::Buffer* GpuMemory::find(std::uint32_t id) const {
  const auto found = buffers_.find(id);
  return found == buffers_.end() ? nullptr : &found->second;
}

std::optional<GpuMemory::Run> GpuMemory::resolve(std::uint64_t address, std::uint64_t bytes) const {
  auto found = mapped_.upper_bound(address);
  if (found == mapped_.begin()) return std::nullopt;
  const Buffer& buffer = buffers_.at(std::prev(found)->second);
  const std::uint64_t within = address - buffer.gpu_address;
  if (within >= buffer.bytes * buffer.copies) return std::nullopt;
  const std::uint64_t at = within % buffer.bytes;
  Run run;
  run.bytes = std::min(bytes, buffer.bytes - at);
  if (buffer.kind != MemoryKind::userptr) {
    run.host = backing_.at(buffer.offset + at);
  } else if (buffer.shared.base() != nullptr) {
    run.host = buffer.shared.base() + at;
  } else {
    run.user_address = buffer.user_address + at;
  }
  return run;
}

bool GpuMemory::read(std::uint64_t address, std::span<std::byte> to) const {
  while (!to.empty()) {
    const auto run = resolve(address, to.size());
    if (!run) return false;
    if (run->host != nullptr) {
      std::memcpy(to.data(), run->host, run->bytes);
    } else if (!read_process(pid_, run->user_address, to.first(run->bytes))) {
      return false;
    }
    to = to.subspan(run->bytes);
    address += run->bytes;
  }
  return true;
}

bool GpuMemory::write(std::uint64_t address, std::span<const std::byte> from) {
  while (!from.empty()) {
    const auto run = resolve(address, from.size());
    if (!run) return false;
    if (run->host != nullptr) {
      std::memcpy(run->host, from.data(), run->bytes);
    } else if (!write_process(pid_, run->user_address, from.first(run->bytes))) {
      return false;
    }
    from = from.subspan(run->bytes);
    address += run->bytes;
  }
  return true;
}

bool GpuMemory::mapped(std::uint64_t address, std::uint64_t bytes) const {
  while (bytes != 0) {
    const auto run = resolve(address, bytes);
    if (!run) return false;
    bytes -= run->bytes;
    address += run->bytes;
  }
  return true;
}

std::optional<GpuMemory::Run> GpuMemory::resolve_word(std::uint64_t address) const {
  if (address % sizeof(std::uint64_t) != 0) return std::nullopt;
  return resolve(address, sizeof(std::uint64_t));
}

std::optional<std::uint64_t> GpuMemory::load(std::uint64_t address) const {
  const auto run = resolve_word(address);
  if (!run) return std::nullopt;
  if (run->host == nullptr) return read_as<std::uint64_t>(address);
  const std::atomic_ref<std::uint64_t> word(*reinterpret_cast<std::uint64_t*>(run->host));
  return word.load(std::memory_order_acquire);
}

bool GpuMemory::store(std::uint64_t address, std::uint64_t value) {
  const auto run = resolve_word(address);
  if (!run) return false;
  if (run->host == nullptr) return write_as(address, value);
  const std::atomic_ref<std::uint64_t> word(*reinterpret_cast<std::uint64_t*>(run->host));
  word.store(value, std::memory_order_release);
  return true;
}

std::byte* GpuMemory::direct(std::uint64_t address, std::uint64_t bytes) const {
  const auto run = resolve(address, bytes);
  return run && run->bytes == bytes ? run->host : nullptr;
}

bool GpuMemory::is_vram(std::uint64_t address) const {
  const auto found = mapped_.upper_bound(address);
  if (found == mapped_.begin()) return false;
  const Buffer& buffer = buffers_.at(std::prev(found)->second);
  return buffer.kind == MemoryKind::vram &&
         address - buffer.gpu_address < buffer.bytes * buffer.copies;
}

bool GpuMemory::add(std::uint64_t address, std::int64_t addend) {
  const auto run = resolve_word(address);
  if (!run) return false;
  if (run->host == nullptr) {
    const auto value = read_as<std::int64_t>(address);
    return value && write_as<std::int64_t>(address, *value + addend);
  }
  const std::atomic_ref<std::int64_t> value(*reinterpret_cast<std::int64_t*>(run->host));
  // Release: whoever sees the signal's new value sees what the kernel wrote before.
  value.fetch_add(addend, std::memory_order_release);
  return true;
}

}  // namespace eclip::kfdsim
