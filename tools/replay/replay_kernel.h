// Replay kernels: GPU code objects that stand for measured kernels.
//
// A replay image is a flat, position-independent code image. Each kernel in it is an AMDHSA kernel
// descriptor (64 bytes) that points at an `s_endpgm`, followed by a ReplayRecord. On real hardware
// a replay kernel therefore ends at once and does no harm; the simulated GPU recognises the record
// by its magic and takes the time that it states for the CUs that the kernel gets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "daemon/model/kernel.h"
#include "ipc/result.h"

namespace eclip::replay {

/// Distance from a kernel object (its descriptor) to its ReplayRecord, in bytes.
inline constexpr std::size_t record_offset = 64;
/// Alignment of each kernel object in an image, in bytes.
inline constexpr std::size_t kernel_alignment = 64;

/// One point of t(c); time in nanoseconds of device time.
struct ReplayPoint {
  std::uint32_t cus;
  std::uint32_t time_ns;
};

/// What the simulated GPU reads. Little endian, fixed layout (static_asserts below).
struct ReplayRecord {
  static constexpr std::array<char, 8> expected_magic{'E', 'C', 'L', 'R', 'P', 'L', 'Y', '1'};
  static constexpr std::uint32_t flag_mix = 1;  ///< the kernarg segment holds a MixKernarg
  static constexpr std::size_t max_points = 16;

  std::array<char, 8> magic;
  std::uint32_t flags;
  std::uint32_t point_count;
  std::uint32_t workgroups;
  std::uint32_t workgroup_size;
  std::uint32_t registers_per_thread;
  std::uint32_t local_memory_bytes;
  std::array<ReplayPoint, max_points> points;
};
static_assert(sizeof(ReplayRecord) == 32 + 16 * 8);
static_assert(offsetof(ReplayRecord, points) == 32);

/// Kernel arguments of a kernel with flag_mix. The kernel reads `inputs` when it starts and writes
/// mix(salt, inputs) to `output` when it ends, so that a violated dependency changes the value.
struct MixKernarg {
  static constexpr std::size_t max_inputs = 6;
  std::uint64_t output;  ///< GPU address of a 64-bit word; 0: nothing is written
  std::uint32_t salt;
  std::uint32_t input_count;                     ///< at most max_inputs
  std::array<std::uint64_t, max_inputs> inputs;  ///< GPU addresses of 64-bit words
};
static_assert(sizeof(MixKernarg) == 64);

/// The value that a mixing kernel writes; pure, so that hosts can compute what serial execution
/// gives.
std::uint64_t mix(std::uint32_t salt, std::span<const std::uint64_t> inputs);

/// A kernel to be put into an image.
struct ReplayKernel {
  model::LaunchShape shape;
  std::vector<model::TimePoint> points;  ///< 1 .. max_points, ascending
  bool mixes = false;
};

/// Bytes to be loaded at any 256-byte aligned GPU address, and where each kernel object is in them.
struct ReplayImage {
  std::vector<std::byte> bytes;
  std::vector<std::uint32_t> kernel_offsets;
};

/// Errc::invalid_argument names the kernel that cannot be encoded.
Result<ReplayImage> build_replay_image(std::span<const ReplayKernel> kernels);

/// The model's kernel for a record read from GPU memory; Errc::malformed when it is not one.
Result<model::Kernel> decode_replay_record(const ReplayRecord& record);

}  // namespace eclip::replay
