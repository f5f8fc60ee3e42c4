#include "tools/kfdsim/shadow_kernels.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>

#include "tools/kfdsim/blit_kernels.h"

namespace eclip::kfdsim {

ShadowLaunch::ShadowLaunch(GpuMemory& memory, const DispatchPacket& packet,
                           std::span<const std::byte> arguments)
    : memory_(memory), arguments_(arguments) {
  std::copy(packet.grid_size.begin(), packet.grid_size.end(), view_.launch.grid_size);
  std::copy(packet.workgroup_size.begin(), packet.workgroup_size.end(),
            view_.launch.workgroup_size);
  view_.launch.group_segment_bytes = packet.group_segment_bytes;
  view_.launch.kernarg = packet.kernarg_address;
  view_.launch.read = read_at;
  view_.launch.write = write_at;
  view_.owner = this;
}

const void* ShadowLaunch::read_at(const kfdsim_launch* launch, std::uint64_t address,
                                  std::size_t bytes) {
  ShadowLaunch& owner = *reinterpret_cast<const View*>(launch)->owner;
  const std::uint64_t within = address - launch->kernarg;
  if (bytes != 0 && within < owner.arguments_.size() && bytes <= owner.arguments_.size() - within) {
    return owner.arguments_.data() + within;
  }
  return owner.reach(address, bytes, false);
}

void* ShadowLaunch::write_at(const kfdsim_launch* launch, std::uint64_t address,
                             std::size_t bytes) {
  return reinterpret_cast<const View*>(launch)->owner->reach(address, bytes, true);
}

std::byte* ShadowLaunch::reach(std::uint64_t address, std::size_t bytes, bool written) {
  if (bytes == 0) return nullptr;
  if (!memory_.mapped(address, bytes)) {
    if (!unreachable_) unreachable_ = address;
    return nullptr;
  }
  if (std::byte* direct = memory_.direct(address, bytes)) return direct;
  // Private user memory, or more than one buffer: a copy, which commit() writes back. The client
  // chooses how much, kfdsim has to hold it.
  if (bytes > max_staged_bytes - staged_bytes_) {
    if (!unreachable_) unreachable_ = address;
    too_large_ = true;
    return nullptr;
  }
  staged_bytes_ += bytes;
  auto staged = std::make_unique<Staged>(Staged{address, std::vector<std::byte>(bytes), written});
  if (!memory_.read(address, staged->bytes)) {
    if (!unreachable_) unreachable_ = address;
    return nullptr;
  }
  staged_.push_back(std::move(staged));
  return staged_.back()->bytes.data();
}

void ShadowLaunch::commit() {
  for (const auto& staged : staged_) {
    if (!staged->written || memory_.write(staged->address, staged->bytes)) continue;
    if (!unreachable_) unreachable_ = staged->address;
  }
  staged_.clear();
}

ShadowKernels::ShadowKernels() {
  for (const BlitKernel& blit : blit_kernels()) by_name_[blit.name] = blit.kernel;
}

Result<void> ShadowKernels::load(const std::filesystem::path& path) {
  // A name without a slash would be searched for among the system's libraries.
  const std::string file = std::filesystem::absolute(path).string();
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return fail(Errc::not_found, fmt::format("--shadow: {}", ::dlerror()));
  }
  const auto* entry =
      static_cast<const kfdsim_shadow_kernel*>(::dlsym(library, "kfdsim_shadow_kernels"));
  if (entry == nullptr) {
    ::dlclose(library);
    return fail(Errc::malformed, fmt::format("--shadow: {} does not export kfdsim_shadow_kernels "
                                             "(eclip/kfdsim/shadow_kernel.h describes it)",
                                             file));
  }
  // The library stays loaded as long as the process lives.
  for (; entry->name != nullptr; ++entry) {
    if (entry->run == nullptr) {
      return fail(Errc::malformed,
                  fmt::format("--shadow: {}: kernel \"{}\" has no function", file, entry->name));
    }
    by_name_[entry->name] = ShadowKernel{entry->run, nullptr};
  }
  return {};
}

const ShadowKernel* ShadowKernels::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &found->second;
}

}  // namespace eclip::kfdsim
