#include "tools/eclip-replay/mix_chain.h"

#include <array>
#include <cstring>

#include "tools/replay/replay_kernel.h"

namespace eclip::replay {

MixChain::MixChain(Connection& connection)
    : memory_(connection.allocate(slot_count * (sizeof(MixKernarg) + sizeof(std::uint64_t)))) {}

std::uint64_t MixChain::word_offset(std::uint64_t kernel) {
  return slot_count * sizeof(MixKernarg) + kernel % slot_count * sizeof(std::uint64_t);
}

std::uint64_t MixChain::add() {
  const std::uint64_t kernel = kernels_++;
  // Before the first kernel stands the last word, which is 0 as all the memory is.
  const std::uint64_t previous = kernel + slot_count - 1;
  MixKernarg arguments{};
  arguments.output = memory_.gpu_address() + word_offset(kernel);
  arguments.salt = static_cast<std::uint32_t>(kernel);
  arguments.input_count = 1;
  arguments.inputs[0] = memory_.gpu_address() + word_offset(previous);
  const std::uint64_t offset = kernel % slot_count * sizeof(MixKernarg);
  std::memcpy(memory_.host<std::byte>() + offset, &arguments, sizeof arguments);
  expected_ = mix(arguments.salt, std::array{expected_});
  return offset;
}

std::uint64_t MixChain::value() const {
  return kernels_ == 0 ? 0 : word(kernels_ - 1);
}

std::optional<std::uint64_t> MixChain::value_at(const MixMark& mark) const {
  if (mark.kernels == 0 || kernels_ - mark.kernels >= slot_count) return std::nullopt;
  return word(mark.kernels - 1);
}

std::uint64_t MixChain::word(std::uint64_t kernel) const {
  std::uint64_t value = 0;
  std::memcpy(&value, memory_.host<std::byte>() + word_offset(kernel), sizeof value);
  return value;
}

}  // namespace eclip::replay
