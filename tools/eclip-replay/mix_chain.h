// A chain of mixing kernels: each reads the word that the one before it wrote, so that the last
// word is right only if all ran in program order.
#pragma once

#include <cstdint>
#include <eclip/eclip.hpp>
#include <optional>

namespace eclip::replay {

/// A point of a chain, and what the word there must be; kernels 0: none.
struct MixMark {
  std::uint64_t kernels = 0;
  std::uint64_t expected = 0;
};

class MixChain {
 public:
  /// Kernels that may be in flight at once: a slot is written anew for the kernel slot_count later.
  static constexpr std::uint64_t slot_count = 4096;

  explicit MixChain(Connection& connection);

  [[nodiscard]] std::uint32_t memory() const { return memory_.handle(); }
  /// Writes the arguments of the next kernel and returns their offset in memory(). The kernel
  /// slot_count before it must have completed.
  std::uint64_t add();
  /// What the last kernel wrote; all must have completed.
  [[nodiscard]] std::uint64_t value() const;
  /// What it should have written, by serial execution on the host.
  [[nodiscard]] std::uint64_t expected() const { return expected_; }
  /// Where the chain ends now.
  [[nodiscard]] MixMark mark() const { return {kernels_, expected_}; }
  /// The word at a mark; nullopt when there is none or it may have been written anew.
  [[nodiscard]] std::optional<std::uint64_t> value_at(const MixMark& mark) const;

 private:
  [[nodiscard]] std::uint64_t word(std::uint64_t kernel) const;
  [[nodiscard]] static std::uint64_t word_offset(std::uint64_t kernel);

  Memory memory_;  // slot_count MixKernargs, then slot_count words
  std::uint64_t kernels_ = 0;
  std::uint64_t expected_ = 0;
};

}  // namespace eclip::replay
