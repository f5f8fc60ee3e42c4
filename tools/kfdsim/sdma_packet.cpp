#include "tools/kfdsim/sdma_packet.h"

#include <fmt/format.h>

#include <utility>

namespace eclip::kfdsim {
namespace {

// The formats are those of ROCr's sdma_registers.h and of the Linux driver's
// vega10_sdma_pkt_open.h.
enum Operation : std::uint8_t {
  op_nop = 0,
  op_copy = 1,
  op_fence = 5,
  op_trap = 6,
  op_poll_regmem = 8,
  op_atomic = 10,
  op_constant_fill = 11,
  op_timestamp = 13,
};
constexpr std::uint8_t sub_copy_linear = 0;
constexpr std::uint8_t sub_copy_rect = 4;
constexpr std::uint8_t sub_timestamp_global = 2;
constexpr std::uint32_t atomic_add_64 = 47;
constexpr std::uint32_t fill_size_dword = 2;

constexpr std::uint32_t bits(std::uint32_t word, unsigned position, unsigned width) {
  return (word >> position) & ((1U << width) - 1U);
}

std::uint64_t address_at(std::span<const std::uint32_t> words, std::size_t index) {
  return std::uint64_t{words[index + 1]} << 32 | words[index];
}

QueueFault unknown(std::string text) {
  return {false, 0, std::move(text)};
}

using Decoded = std::variant<SdmaPacket, QueueFault>;

SdmaPacket packet(std::size_t words, decltype(SdmaPacket::body) body) {
  return {words * sizeof(std::uint32_t), body};
}

/// Needs all 13 words. The element size is 2^n bytes; pitches are stored less one.
Decoded decode_rect(std::span<const std::uint32_t> words) {
  const unsigned element = bits(words[0], 29, 3);
  const auto side = [&](std::size_t at) {
    SdmaCopyRect::Side result;
    result.pitch = (std::uint64_t{bits(words[at + 3], 13, 19)} + 1) << element;
    result.slice = (std::uint64_t{bits(words[at + 4], 0, 28)} + 1) << element;
    const std::uint64_t x = std::uint64_t{bits(words[at + 2], 0, 14)} << element;
    result.first = address_at(words, at) + x + bits(words[at + 2], 16, 14) * result.pitch +
                   bits(words[at + 3], 0, 11) * result.slice;
    return result;
  };
  SdmaCopyRect rect;
  rect.source = side(1);
  rect.destination = side(6);
  rect.width = (std::uint64_t{bits(words[11], 0, 14)} + 1) << element;
  rect.rows = std::uint64_t{bits(words[11], 16, 14)} + 1;
  rect.slices = std::uint64_t{bits(words[12], 0, 11)} + 1;
  // Rows may lie over one another: what no memory is large enough for would take minutes.
  constexpr std::uint64_t max_bytes = 1ULL << 37;
  if (rect.width * rect.rows * rect.slices > max_bytes) {
    return unknown("an SDMA copy of more than 128 GiB in one rectangle is not simulated");
  }
  return packet(13, rect);
}

Decoded decode_poll(std::span<const std::uint32_t> words) {
  constexpr unsigned hdp_flush_bit = 26;
  constexpr unsigned memory_bit = 31;
  const bool is_memory = bits(words[0], memory_bit, 1) != 0;
  // Polling a register is how the host data path's flush is written; there is none to flush.
  if (!is_memory || bits(words[0], hdp_flush_bit, 1) != 0) return packet(6, SdmaNop{});
  SdmaPoll poll;
  poll.address = address_at(words, 1);
  poll.reference = words[3];
  poll.mask = words[4];
  poll.function = static_cast<std::uint8_t>(bits(words[0], 28, 3));
  return packet(6, poll);
}

Decoded decode_copy(std::span<const std::uint32_t> words, std::uint8_t sub) {
  if (sub == sub_copy_rect) return decode_rect(words);
  if (sub != sub_copy_linear) {
    return unknown(fmt::format("SDMA copy packets of kind {} are not simulated", sub));
  }
  return packet(7, SdmaCopy{address_at(words, 3), address_at(words, 5),
                            std::uint64_t{bits(words[1], 0, 22)} + 1});
}

Decoded decode_fill(std::span<const std::uint32_t> words) {
  if (bits(words[0], 30, 2) != fill_size_dword) {
    return unknown("SDMA fill packets of bytes are not simulated, only of 32-bit words");
  }
  return packet(
      5, SdmaFill{address_at(words, 1), words[3], (std::uint64_t{bits(words[4], 0, 22)} | 3U) + 1});
}

Decoded decode_atomic(std::span<const std::uint32_t> words) {
  const std::uint32_t operation = bits(words[0], 25, 7);
  if (operation != atomic_add_64) {
    return unknown(fmt::format("SDMA atomic operation {} is not simulated", operation));
  }
  return packet(8, SdmaAtomicAdd{address_at(words, 1), address_at(words, 3)});
}

}  // namespace

bool SdmaPoll::holds(std::uint32_t value) const {
  const std::uint32_t masked = value & mask;
  switch (function) {
    case 1:
      return masked < reference;
    case 2:
      return masked <= reference;
    case 3:
      return masked == reference;
    case 4:
      return masked != reference;
    case 5:
      return masked >= reference;
    case 6:
      return masked > reference;
    default:
      return true;
  }
}

std::variant<SdmaPacket, QueueFault> decode_sdma_packet(std::span<const std::uint32_t> given,
                                                        std::uint64_t announced_bytes) {
  // Reading past the end finds zeros; whether the packet fits is judged by its length. Only a NOP
  // may be longer than what is given: what it skips is not looked at.
  std::array<std::uint32_t, sdma_max_words> words{};
  for (std::size_t i = 0; i < words.size() && i < given.size(); ++i) words.at(i) = given[i];
  const auto operation = static_cast<std::uint8_t>(words[0]);
  const auto sub = static_cast<std::uint8_t>(words[0] >> 8);
  Decoded decoded;
  switch (operation) {
    case op_nop:
      decoded = packet(1 + bits(words[0], 16, 14), SdmaNop{});
      break;
    case op_copy:
      decoded = decode_copy(words, sub);
      break;
    case op_fence:
      decoded = packet(4, SdmaFence{address_at(words, 1), words[3]});
      break;
    case op_trap:
      decoded = packet(2, SdmaTrap{bits(words[1], 0, 28)});
      break;
    case op_poll_regmem:
      decoded = decode_poll(words);
      break;
    case op_atomic:
      decoded = decode_atomic(words);
      break;
    case op_constant_fill:
      decoded = decode_fill(words);
      break;
    case op_timestamp:
      if (sub != sub_timestamp_global) {
        return unknown(fmt::format("SDMA timestamp packets of kind {} are not simulated", sub));
      }
      decoded = packet(3, SdmaTimestamp{address_at(words, 1)});
      break;
    default:
      return unknown(fmt::format("SDMA packets with operation {} are not simulated", operation));
  }
  const auto* whole = std::get_if<SdmaPacket>(&decoded);
  if (whole != nullptr && whole->bytes > announced_bytes) {
    return unknown(fmt::format("an SDMA packet with operation {} is cut off", operation));
  }
  return decoded;
}

}  // namespace eclip::kfdsim
