#include "tools/replay/replay_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace eclip::replay {
namespace {

/// AMDHSA kernel descriptor of code object v3 (LLVM AMDGPU usage guide, "Kernel Descriptor").
struct KernelDescriptor {
  std::uint32_t group_segment_fixed_size;
  std::uint32_t private_segment_fixed_size;
  std::uint32_t kernarg_size;
  std::uint32_t reserved0;
  std::int64_t kernel_code_entry_byte_offset;  // from the descriptor
  std::uint8_t reserved1[20];
  std::uint32_t compute_pgm_rsrc3;
  std::uint32_t compute_pgm_rsrc1;
  std::uint32_t compute_pgm_rsrc2;
  std::uint16_t kernel_code_properties;
  std::uint8_t reserved2[6];
};
static_assert(sizeof(KernelDescriptor) == record_offset);
static_assert(offsetof(KernelDescriptor, kernel_code_entry_byte_offset) == 16);
static_assert(offsetof(KernelDescriptor, compute_pgm_rsrc3) == 44);
static_assert(offsetof(KernelDescriptor, compute_pgm_rsrc1) == 48);
static_assert(offsetof(KernelDescriptor, compute_pgm_rsrc2) == 52);
static_assert(offsetof(KernelDescriptor, kernel_code_properties) == 56);

constexpr std::uint32_t s_endpgm = 0xBF810000;
constexpr std::size_t code_alignment = 256;
/// Instruction prefetch reads past the end: the code block is filled to its alignment.
constexpr std::size_t code_bytes = 256;

/// One granule of VGPRs and SGPRs (both encoded as 0), IEEE mode, denormals kept, DX10 clamp:
/// what the compiler gives an empty kernel.
constexpr std::uint32_t rsrc1 = (1U << 23U) | (1U << 21U) | (3U << 18U) | (3U << 16U);
/// Two user SGPRs (the kernarg pointer) and the workgroup id in x.
constexpr std::uint32_t rsrc2 = (1U << 7U) | (2U << 1U);
/// ENABLE_SGPR_KERNARG_SEGMENT_PTR.
constexpr std::uint16_t properties = 1U << 3U;

constexpr std::size_t align_up(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// SplitMix64's finaliser: a bijection in which every input bit reaches every output bit.
std::uint64_t scramble(std::uint64_t value) {
  value ^= value >> 30U;
  value *= 0xBF58476D1CE4E5B9;
  value ^= value >> 27U;
  value *= 0x94D049BB133111EB;
  return value ^ (value >> 31U);
}

Result<ReplayRecord> encode(const ReplayKernel& kernel, const std::string& where) {
  if (kernel.points.size() > ReplayRecord::max_points)
    return fail(Errc::invalid_argument, where + " has " + std::to_string(kernel.points.size()) +
                                            " points of t(c); keep at most " +
                                            std::to_string(ReplayRecord::max_points));
  if (auto checked = model::Kernel::create(kernel.shape, kernel.points); !checked)
    return fail(Errc::invalid_argument, where + ": " + checked.error().context);
  ReplayRecord record{};
  record.magic = ReplayRecord::expected_magic;
  record.flags = kernel.mixes ? ReplayRecord::flag_mix : 0;
  record.point_count = static_cast<std::uint32_t>(kernel.points.size());
  record.workgroups = kernel.shape.workgroups;
  record.workgroup_size = kernel.shape.workgroup_size;
  record.registers_per_thread = kernel.shape.registers_per_thread;
  record.local_memory_bytes = kernel.shape.local_memory_bytes;
  for (std::size_t i = 0; i < kernel.points.size(); ++i) {
    const double time_ns = std::round(kernel.points[i].time_us * 1000);
    if (time_ns < 1 || time_ns > std::numeric_limits<std::uint32_t>::max())
      return fail(Errc::invalid_argument, where + ": point " + std::to_string(i) + " takes " +
                                              std::to_string(kernel.points[i].time_us) +
                                              " us; a record holds 0.001 us to 4.29 s");
    record.points[i] = {kernel.points[i].cus, static_cast<std::uint32_t>(time_ns)};
  }
  return record;
}

template <class T>
void put(std::vector<std::byte>& bytes, std::size_t offset, const T& value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

}  // namespace

std::uint64_t mix(std::uint32_t salt, std::span<const std::uint64_t> inputs) {
  constexpr std::uint64_t golden = 0x9E3779B97F4A7C15;
  std::uint64_t state = scramble((std::uint64_t{salt} << 32U | inputs.size()) + golden);
  // Multiplying by an odd constant between inputs makes the value depend on their order.
  for (const std::uint64_t input : inputs)
    state = scramble(state * golden + scramble(input + golden));
  return state;
}

Result<ReplayImage> build_replay_image(std::span<const ReplayKernel> kernels) {
  constexpr std::size_t stride = align_up(record_offset + sizeof(ReplayRecord), kernel_alignment);
  const std::size_t code = align_up(stride * kernels.size(), code_alignment);
  if (code + code_bytes > std::numeric_limits<std::uint32_t>::max())
    return fail(Errc::invalid_argument,
                std::to_string(kernels.size()) + " kernels are too many for one image; split them");
  ReplayImage image;
  image.bytes.resize(code + code_bytes);
  image.kernel_offsets.reserve(kernels.size());
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const auto record = encode(kernels[i], "replay kernel " + std::to_string(i));
    if (!record) return tl::unexpected(record.error());
    const std::size_t offset = i * stride;
    KernelDescriptor descriptor{};
    // group_segment_fixed_size stays 0: the code needs none, and the measured kernel's may be more
    // than the GPU that it is replayed on has.
    descriptor.kernarg_size = kernels[i].mixes ? sizeof(MixKernarg) : 0;
    descriptor.kernel_code_entry_byte_offset = static_cast<std::int64_t>(code - offset);
    descriptor.compute_pgm_rsrc1 = rsrc1;
    descriptor.compute_pgm_rsrc2 = rsrc2;
    descriptor.kernel_code_properties = properties;
    put(image.bytes, offset, descriptor);
    put(image.bytes, offset + record_offset, *record);
    image.kernel_offsets.push_back(static_cast<std::uint32_t>(offset));
  }
  for (std::size_t at = code; at < image.bytes.size(); at += sizeof(s_endpgm))
    put(image.bytes, at, s_endpgm);
  return image;
}

Result<model::Kernel> decode_replay_record(const ReplayRecord& record) {
  if (record.magic != ReplayRecord::expected_magic)
    return fail(Errc::malformed, "the kernel object carries no replay record (its magic differs)");
  if ((record.flags & ~ReplayRecord::flag_mix) != 0)
    return fail(Errc::malformed, "the replay record has unknown flags " +
                                     std::to_string(record.flags) + "; build the image again");
  if (record.point_count == 0 || record.point_count > ReplayRecord::max_points)
    return fail(Errc::malformed, "the replay record states " + std::to_string(record.point_count) +
                                     " points of t(c), not 1 to " +
                                     std::to_string(ReplayRecord::max_points));
  std::vector<model::TimePoint> points;
  points.reserve(record.point_count);
  for (std::uint32_t i = 0; i < record.point_count; ++i)
    points.push_back({record.points[i].cus, record.points[i].time_ns / 1000.0});
  auto kernel = model::Kernel::create({.workgroups = record.workgroups,
                                       .workgroup_size = record.workgroup_size,
                                       .registers_per_thread = record.registers_per_thread,
                                       .local_memory_bytes = record.local_memory_bytes},
                                      points);
  if (!kernel) return fail(kernel.error(), "replay record");
  return kernel;
}

}  // namespace eclip::replay
