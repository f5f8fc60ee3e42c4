// The host functions that stand in for GPU kernels, and the GPU memory that they see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ipc/result.h"
#include "tools/kfdsim/aql_packet.h"
#include "tools/kfdsim/gpu_memory.h"
#include "tools/kfdsim/shadow_kernel.h"

namespace eclip::kfdsim {

/// A kfdsim_launch over one client's memory. What was written reaches that memory on commit().
class ShadowLaunch {
 public:
  /// `arguments`, unless empty, are what reads of the kernarg segment see; they outlive the launch.
  ShadowLaunch(GpuMemory& memory, const DispatchPacket& packet,
               std::span<const std::byte> arguments = {});

  /// Of memory that kfdsim does not see itself, or that lies in several buffers.
  static constexpr std::uint64_t max_staged_bytes = 1ULL << 30;

  [[nodiscard]] const kfdsim_launch& launch() const { return view_.launch; }
  /// The first address that could not be reached.
  [[nodiscard]] std::optional<std::uint64_t> unreachable() const { return unreachable_; }
  /// Whether that is because it is too much memory to be copied.
  [[nodiscard]] bool too_large() const { return too_large_; }
  void commit();

 private:
  // What the C functions get is the first member of this.
  struct View {
    kfdsim_launch launch;
    ShadowLaunch* owner;
  };
  struct Staged {
    std::uint64_t address;
    std::vector<std::byte> bytes;
    bool written;
  };
  static const void* read_at(const kfdsim_launch* launch, std::uint64_t address, std::size_t bytes);
  static void* write_at(const kfdsim_launch* launch, std::uint64_t address, std::size_t bytes);
  std::byte* reach(std::uint64_t address, std::size_t bytes, bool written);

  GpuMemory& memory_;
  std::span<const std::byte> arguments_;
  View view_{};
  std::vector<std::unique_ptr<Staged>> staged_;
  std::uint64_t staged_bytes_ = 0;
  std::optional<std::uint64_t> unreachable_;
  bool too_large_ = false;
};

/// What a copy moves; a fill has no source.
struct Transfer {
  std::optional<std::uint64_t> source;
  std::uint64_t destination = 0;
  std::uint64_t bytes = 0;
};

struct ShadowKernel {
  int (*run)(const kfdsim_launch* launch) = nullptr;
  /// What the kernel moves, which gives its time; null for kernels that are no copies. Returns
  /// nullopt when the arguments cannot be read.
  std::optional<Transfer> (*transfer)(const kfdsim_launch* launch) = nullptr;
  /// Of kernels whose arguments have to be read when they start: how many bytes. 0 for others,
  /// whose arguments stay until the kernel has ended, as HSA asks for.
  std::size_t early_argument_bytes = 0;
};

/// By name: the ROCm runtime's own copy and fill kernels, and those of libraries.
class ShadowKernels {
 public:
  ShadowKernels();
  /// Adds what the library at `path` exports; its names win over earlier ones. Errc::not_found when
  /// it cannot be loaded, Errc::malformed when it does not export kfdsim_shadow_kernels.
  Result<void> load(const std::filesystem::path& path);
  /// Null when the kernel has no shadow.
  [[nodiscard]] const ShadowKernel* find(const std::string& name) const;

 private:
  std::unordered_map<std::string, ShadowKernel> by_name_;
};

}  // namespace eclip::kfdsim
