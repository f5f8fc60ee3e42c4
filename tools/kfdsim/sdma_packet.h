// Packets of the SDMA engines (gfx9 formats) as they read them from a queue's ring.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "tools/kfdsim/aql_packet.h"

namespace eclip::kfdsim {

struct SdmaNop {};
struct SdmaCopy {
  std::uint64_t source = 0;
  std::uint64_t destination = 0;
  std::uint64_t bytes = 0;
};
/// Rows of a pitched block; all lengths are in bytes.
struct SdmaCopyRect {
  struct Side {
    std::uint64_t first = 0;  ///< address of the first row
    std::uint64_t pitch = 0;
    std::uint64_t slice = 0;
  };
  Side source;
  Side destination;
  std::uint64_t width = 0;
  std::uint64_t rows = 0;
  std::uint64_t slices = 0;
};
struct SdmaFill {
  std::uint64_t destination = 0;
  std::uint32_t value = 0;  ///< repeated
  std::uint64_t bytes = 0;  ///< a multiple of 4
};
struct SdmaFence {
  std::uint64_t address = 0;
  std::uint32_t value = 0;
};
struct SdmaTrap {
  std::uint32_t event_id = 0;
};
/// Waits until memory compares as asked.
struct SdmaPoll {
  std::uint64_t address = 0;
  std::uint32_t reference = 0;
  std::uint32_t mask = 0;
  std::uint8_t function = 0;
  [[nodiscard]] bool holds(std::uint32_t value) const;
};
/// Adds to a 64-bit word.
struct SdmaAtomicAdd {
  std::uint64_t address = 0;
  std::uint64_t addend = 0;
};
/// Writes the GPU's clock counter.
struct SdmaTimestamp {
  std::uint64_t address = 0;
};

struct SdmaPacket {
  std::size_t bytes = 0;  ///< in the ring
  std::variant<SdmaNop, SdmaCopy, SdmaCopyRect, SdmaFill, SdmaFence, SdmaTrap, SdmaPoll,
               SdmaAtomicAdd, SdmaTimestamp>
      body;
};

/// The largest packet that is known, in 32-bit words.
inline constexpr std::size_t sdma_max_words = 13;

/// The packet at the start of `words`, or why it cannot be processed. `words` are the first of
/// `announced_bytes` that the client has written; a packet that is longer than those is a fault.
std::variant<SdmaPacket, QueueFault> decode_sdma_packet(std::span<const std::uint32_t> words,
                                                        std::uint64_t announced_bytes);

}  // namespace eclip::kfdsim
