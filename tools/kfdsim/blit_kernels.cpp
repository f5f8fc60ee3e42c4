#include "tools/kfdsim/blit_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace eclip::kfdsim {
namespace {

/// A copy: the client may write to its memory meanwhile, and need not align it.
template <class T>
std::optional<T> arguments_of(const kfdsim_launch* launch) {
  const void* bytes = launch->read(launch, launch->kernarg, sizeof(T));
  if (bytes == nullptr) return std::nullopt;
  T arguments;
  std::memcpy(&arguments, bytes, sizeof arguments);
  return arguments;
}

/// Work items along a dimension, of those that have something to do.
std::uint64_t items(const kfdsim_launch* launch, int dimension, std::uint64_t wanted) {
  return std::min<std::uint64_t>(wanted, launch->grid_size[dimension]);
}

int move_bytes(const kfdsim_launch* launch, const Transfer& transfer) {
  if (transfer.bytes == 0) return 0;
  const void* from = launch->read(launch, *transfer.source, transfer.bytes);
  void* to = launch->write(launch, transfer.destination, transfer.bytes);
  if (from == nullptr || to == nullptr) return 1;
  std::memmove(to, from, transfer.bytes);
  return 0;
}

template <std::optional<Transfer> (*TransferOf)(const kfdsim_launch*)>
int copy(const kfdsim_launch* launch) {
  const auto transfer = TransferOf(launch);
  return transfer ? move_bytes(launch, *transfer) : 1;
}

/// Whether so many moves of so many bytes are more than one kernel gets done: they hold up the
/// whole GPU, and the client chooses them. Any size of memory passes, in pieces of any size that is
/// usual.
bool too_many(std::uint64_t moves, std::uint64_t bytes_each) {
  constexpr std::uint64_t max_cost_bytes = 1ULL << 37;
  constexpr std::uint64_t cost_of_a_move_bytes = 512;
  std::uint64_t cost = 0;
  return __builtin_mul_overflow(moves, std::max(bytes_each, cost_of_a_move_bytes), &cost) ||
         cost > max_cost_bytes;
}

/// Fills `bytes` bytes with the pattern, again and again.
void repeat_pattern(std::byte* to, std::uint64_t bytes, const std::byte* pattern,
                    std::uint64_t pattern_bytes) {
  constexpr std::uint64_t block_bytes = 1 << 15;  // stays in the CPU's cache
  std::memmove(to, pattern, pattern_bytes);
  // What is there already is the pattern of what comes.
  std::uint64_t period = pattern_bytes;
  for (std::uint64_t done = pattern_bytes; done < bytes; done += period) {
    while (period < block_bytes && period * 2 <= done) period *= 2;
    std::memcpy(to + done, to, std::min(period, bytes - done));
  }
}

/// Fills `count` elements, `stride` bytes apart from one another's start, with the pattern.
int fill_pattern(const kfdsim_launch* launch, std::uint64_t destination, std::uint64_t count,
                 std::uint64_t stride, const std::byte* pattern, std::uint64_t pattern_bytes) {
  if (count == 0 || pattern_bytes == 0) return 0;
  // The arguments are the client's: what wraps around must not look short.
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(count - 1, stride, &bytes) ||
      __builtin_add_overflow(bytes, pattern_bytes, &bytes)) {
    return 1;
  }
  auto* to = static_cast<std::byte*>(launch->write(launch, destination, bytes));
  if (to == nullptr) return 1;
  if (stride == pattern_bytes) {
    repeat_pattern(to, bytes, pattern, pattern_bytes);
    return 0;
  }
  if (too_many(count, pattern_bytes)) return 1;
  for (std::uint64_t i = 0; i < count; ++i) std::memmove(to + i * stride, pattern, pattern_bytes);
  return 0;
}

// ---- ROCr: amd_blit_kernel.h, union KernelArgs --------------------------------------------------

struct RocrCopyAligned {
  std::uint64_t source;
  std::uint64_t destination;
  std::array<std::uint64_t, 6> phase_starts;
  std::uint64_t source_end;
  std::uint64_t destination_end;
};
struct RocrCopyMisaligned {
  std::uint64_t source;
  std::uint64_t destination;
  std::array<std::uint64_t, 2> phase_starts;
  std::uint64_t source_end;
  std::uint64_t destination_end;
};
struct RocrFill {
  std::uint64_t destination;
  std::uint64_t phase2_start;
  std::uint64_t destination_end;
  std::uint32_t value;
};

template <class Arguments>
std::optional<Transfer> rocr_copy_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<Arguments>(launch);
  if (!arguments) return std::nullopt;
  return Transfer{arguments->source, arguments->destination,
                  arguments->source_end - arguments->source};
}

std::optional<Transfer> rocr_fill_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<RocrFill>(launch);
  if (!arguments) return std::nullopt;
  return Transfer{std::nullopt, arguments->destination,
                  arguments->destination_end - arguments->destination};
}

int rocr_fill(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<RocrFill>(launch);
  if (!arguments) return 1;
  std::array<std::byte, sizeof arguments->value> pattern{};
  std::memcpy(pattern.data(), &arguments->value, pattern.size());
  return fill_pattern(launch, arguments->destination,
                      (arguments->destination_end - arguments->destination) / pattern.size(),
                      pattern.size(), pattern.data(), pattern.size());
}

// ---- HIP: ROCclr's OpenCL source blitcl.cpp; what the kernels do is in Debian's opencl.bc
// --------

struct HipCopyBuffer {
  std::uint64_t source;
  std::uint64_t destination;
  std::uint64_t source_origin;
  std::uint64_t destination_origin;
  std::uint64_t size;
  std::uint32_t unit;  // copyBuffer: "remain"; copyBufferAligned: "alignment"
};

std::optional<Transfer> hip_copy_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipCopyBuffer>(launch);
  if (!arguments) return std::nullopt;
  // With 8, each work item copies a byte; else a dword, and the last one `remain` bytes.
  const std::uint64_t size = items(launch, 0, arguments->size);
  const std::uint64_t bytes =
      arguments->unit == 8 || size == 0 ? size : (size - 1) * 4 + arguments->unit;
  return Transfer{arguments->source + arguments->source_origin,
                  arguments->destination + arguments->destination_origin, bytes};
}

std::optional<Transfer> hip_copy_aligned_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipCopyBuffer>(launch);
  if (!arguments) return std::nullopt;
  const std::uint64_t element = arguments->unit == 16 ? 16 : 4;
  return Transfer{arguments->source + arguments->source_origin * element,
                  arguments->destination + arguments->destination_origin * element,
                  items(launch, 0, arguments->size) * element};
}

struct HipRect {
  std::uint64_t row_pitch;
  std::uint64_t slice_pitch;
  std::uint64_t start;
  std::uint64_t unused;
};
struct HipCopyRect {
  std::uint64_t source;
  std::uint64_t destination;
  std::array<std::uint64_t, 2> padding;  // an OpenCL ulong4 is aligned to 32 bytes
  HipRect source_rect;
  HipRect destination_rect;
  std::array<std::uint64_t, 4> size;  // width, height, depth in elements; element bytes
};

// Whether the kernel's unit is a byte, or what size[3] says.
enum class RectUnit : std::uint8_t { byte, stated };

template <RectUnit Unit>
std::uint64_t element_of(const HipCopyRect& arguments) {
  if (Unit == RectUnit::byte) return 1;
  return arguments.size[3] == 16 ? 16 : 4;
}

template <RectUnit Unit>
std::optional<Transfer> hip_rect_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipCopyRect>(launch);
  if (!arguments) return std::nullopt;
  const std::uint64_t element = element_of<Unit>(*arguments);
  return Transfer{arguments->source + arguments->source_rect.start * element,
                  arguments->destination + arguments->destination_rect.start * element,
                  items(launch, 0, arguments->size[0]) * items(launch, 1, arguments->size[1]) *
                      items(launch, 2, arguments->size[2]) * element};
}

template <RectUnit Unit>
int hip_copy_rect(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipCopyRect>(launch);
  if (!arguments) return 1;
  const std::uint64_t element = element_of<Unit>(*arguments);
  const std::uint64_t width = items(launch, 0, arguments->size[0]);
  const std::uint64_t rows = items(launch, 1, arguments->size[1]);
  const std::uint64_t slices = items(launch, 2, arguments->size[2]);
  if (too_many(rows * slices, width * element)) return 1;
  const auto row = [element](std::uint64_t base, const HipRect& rect, std::uint64_t y,
                             std::uint64_t z) {
    return base + (rect.start + y * rect.row_pitch + z * rect.slice_pitch) * element;
  };
  for (std::uint64_t z = 0; z < slices; ++z) {
    for (std::uint64_t y = 0; y < rows; ++y) {
      const Transfer one{row(arguments->source, arguments->source_rect, y, z),
                         row(arguments->destination, arguments->destination_rect, y, z),
                         width * element};
      if (const int failed = move_bytes(launch, one)) return failed;
    }
  }
  return 0;
}

struct HipFill {
  std::array<std::uint64_t, 4> buffers;  // of 1, 2, 4, 8-byte elements; the largest that is set
  std::uint64_t pattern;
  std::uint32_t pattern_elements;
  std::uint64_t offset;  // elements
  std::uint64_t size;    // patterns; 2D: width in elements
};
struct HipFill2D : HipFill {
  std::uint64_t height;
  std::uint64_t pitch;  // elements
};

struct FillTarget {
  std::uint64_t address = 0;
  std::uint64_t element = 1;
};

FillTarget target_of(const HipFill& arguments) {
  for (std::size_t i = arguments.buffers.size(); i-- > 0;) {
    const std::uint64_t element = 1ULL << i;
    if (arguments.buffers.at(i) != 0) {
      return {arguments.buffers.at(i) + arguments.offset * element, element};
    }
  }
  return {};
}

std::optional<Transfer> hip_fill_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipFill>(launch);
  if (!arguments) return std::nullopt;
  const FillTarget target = target_of(*arguments);
  return Transfer{std::nullopt, target.address,
                  items(launch, 0, arguments->size) * arguments->pattern_elements * target.element};
}

int hip_fill(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipFill>(launch);
  if (!arguments) return 1;
  const FillTarget target = target_of(*arguments);
  const std::uint64_t bytes = arguments->pattern_elements * target.element;
  const void* pattern = launch->read(launch, arguments->pattern, bytes);
  if (pattern == nullptr) return 1;
  return fill_pattern(launch, target.address, items(launch, 0, arguments->size), bytes,
                      static_cast<const std::byte*>(pattern), bytes);
}

std::optional<Transfer> hip_fill_2d_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipFill2D>(launch);
  if (!arguments) return std::nullopt;
  const FillTarget target = target_of(*arguments);
  return Transfer{
      std::nullopt, target.address,
      items(launch, 0, arguments->size) * items(launch, 1, arguments->height) * target.element};
}

int hip_fill_2d(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipFill2D>(launch);
  if (!arguments) return 1;
  const FillTarget target = target_of(*arguments);
  const std::uint64_t bytes = arguments->pattern_elements * target.element;
  const void* pattern = launch->read(launch, arguments->pattern, bytes);
  if (pattern == nullptr) return 1;
  // Each work item writes the whole pattern at its own element.
  const std::uint64_t width = items(launch, 0, arguments->size);
  const std::uint64_t height = items(launch, 1, arguments->height);
  std::uint64_t row_bytes = 0;
  if (__builtin_mul_overflow(width, bytes, &row_bytes) || too_many(height, row_bytes)) return 1;
  for (std::uint64_t y = 0; y < height; ++y) {
    const std::uint64_t row = target.address + y * arguments->pitch * target.element;
    if (const int failed = fill_pattern(launch, row, width, target.element,
                                        static_cast<const std::byte*>(pattern), bytes)) {
      return failed;
    }
  }
  return 0;
}

struct HipStreamWrite {
  std::uint64_t word32;
  std::uint64_t word64;
  std::uint64_t value;
};

int hip_stream_write(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipStreamWrite>(launch);
  if (!arguments) return 1;
  const bool is_32 = arguments->word32 != 0;
  const std::size_t bytes = is_32 ? 4 : 8;
  void* to = launch->write(launch, is_32 ? arguments->word32 : arguments->word64, bytes);
  if (to == nullptr) return 1;
  std::memcpy(to, &arguments->value, bytes);
  return 0;
}

std::optional<Transfer> hip_stream_write_transfer(const kfdsim_launch* launch) {
  const auto arguments = arguments_of<HipStreamWrite>(launch);
  if (!arguments) return std::nullopt;
  const bool is_32 = arguments->word32 != 0;
  return Transfer{std::nullopt, is_32 ? arguments->word32 : arguments->word64,
                  is_32 ? std::uint64_t{4} : std::uint64_t{8}};
}

// ROCr writes the arguments of its next kernels over those of kernels whose packets have left the
// ring, whether they have ended or not.
template <class Arguments>
constexpr ShadowKernel rocr_copy{copy<rocr_copy_transfer<Arguments>>, rocr_copy_transfer<Arguments>,
                                 sizeof(Arguments)};

constexpr std::array table{
    BlitKernel{"CopyAligned", rocr_copy<RocrCopyAligned>},
    BlitKernel{"CopyMisaligned", rocr_copy<RocrCopyMisaligned>},
    BlitKernel{"Fill", {rocr_fill, rocr_fill_transfer, sizeof(RocrFill)}},
    BlitKernel{"__amd_rocclr_copyBuffer", {copy<hip_copy_transfer>, hip_copy_transfer}},
    BlitKernel{"__amd_rocclr_copyBufferAligned",
               {copy<hip_copy_aligned_transfer>, hip_copy_aligned_transfer}},
    BlitKernel{"__amd_rocclr_copyBufferRect",
               {hip_copy_rect<RectUnit::byte>, hip_rect_transfer<RectUnit::byte>}},
    BlitKernel{"__amd_rocclr_copyBufferRectAligned",
               {hip_copy_rect<RectUnit::stated>, hip_rect_transfer<RectUnit::stated>}},
    BlitKernel{"__amd_rocclr_fillBufferAligned", {hip_fill, hip_fill_transfer}},
    BlitKernel{"__amd_rocclr_fillBufferAligned2D", {hip_fill_2d, hip_fill_2d_transfer}},
    BlitKernel{"__amd_rocclr_streamOpsWrite", {hip_stream_write, hip_stream_write_transfer}},
};

struct RocrShader {
  std::uint64_t code_fingerprint;
  std::string_view name;
};

// gfx9 shaders of ROCr 5.2.3 (amd_gpu_shaders.h), taken from GPU memory as Debian's
// libhsa-runtime64.so.1 loads them.
constexpr std::array<RocrShader, 3> rocr_shaders{{
    {0x552f9e8687574887, "CopyAligned"},
    {0x254fb7acafe7901d, "CopyMisaligned"},
    {0x0766b84481e29cf0, "Fill"},
}};

}  // namespace

std::span<const BlitKernel> blit_kernels() {
  return table;
}

bool StreamWait::holds(std::uint64_t word) const {
  // The 32-bit kernel compares 32 bits.
  const std::uint64_t width = word32 != 0 ? UINT32_MAX : UINT64_MAX;
  const std::uint64_t seen = word & mask & width;
  const std::uint64_t wanted = value & width;
  switch (comparison) {
    case greater_or_equal:
      return seen >= wanted;
    case equal:
      return seen == wanted;
    case bits_and:
      return (seen & wanted) != 0;
    case bits_nor:
      return (~(seen | wanted) & mask & width) != 0;
    default:
      return false;
  }
}

std::uint64_t fingerprint(std::span<const std::byte> code) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte byte : code) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
  }
  return hash;
}

std::optional<std::string_view> rocr_shader_name(std::uint64_t code_fingerprint) {
  const auto* const found = std::find_if(
      rocr_shaders.begin(), rocr_shaders.end(),
      [&](const RocrShader& shader) { return shader.code_fingerprint == code_fingerprint; });
  if (found == rocr_shaders.end()) return std::nullopt;
  return found->name;
}

}  // namespace eclip::kfdsim
