// The nodes of the simulated devices' file system, as FUSE and /proc know them: their numbers.
#pragma once

#include <linux/fuse.h>

#include <cstdint>
#include <string_view>

namespace eclip::kfdsim {

inline constexpr std::uint64_t power_node = 2;
inline constexpr std::uint64_t energy_node = 3;
inline constexpr std::uint64_t ioctls_node = 4;
inline constexpr std::uint64_t vram_node = 6;
/// With page-cache mapping only: the directory in which kfdsim itself, and nobody else, opens
/// clients' device files by their numbers.
inline constexpr std::uint64_t memory_directory_node = 5;
inline constexpr std::string_view memory_directory_name = "memory";
/// Numbers from here on belong to client processes: an even one for kfd, the next for renderD128.
inline constexpr std::uint64_t first_client_node = 1024;

/// How long the kernel may keep attributes, in seconds: they never change.
inline constexpr std::uint64_t attributes_valid_s = 3600;

/// And from here on, with the process's number added, to files that tell what it uses of the GPU.
inline constexpr std::uint64_t process_vram_node = 1ULL << 40;
inline constexpr std::uint64_t process_sdma_node = 2ULL << 40;

[[nodiscard]] constexpr bool is_device(std::uint64_t node) {
  return node >= first_client_node && node < process_vram_node;
}
[[nodiscard]] constexpr bool is_render(std::uint64_t node) {
  return (node & 1U) != 0;
}

/// Owned by kfdsim's user. A device is as large as its client's memory, for ever.
[[nodiscard]] fuse_attr attributes_of(std::uint64_t node);
/// The reply to LOOKUP. The kernel must ask for the name again each time: who asks decides.
[[nodiscard]] fuse_entry_out entry_of(std::uint64_t node);
/// The reply to GETATTR and to SETATTR: truncation and times mean nothing to a device.
[[nodiscard]] fuse_attr_out attribute_reply(std::uint64_t node);

}  // namespace eclip::kfdsim
