// A chain of mixing kernels: each reads the word that the one before it wrote, so that the last
// word is right only if all ran in program order.
#pragma once

#include <cstdint>
#include <eclip/eclip.hpp>

namespace eclip::replay {

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

 private:
  [[nodiscard]] static std::uint64_t word_offset(std::uint64_t kernel);

  Memory memory_;  // slot_count MixKernargs, then slot_count words
  std::uint64_t kernels_ = 0;
  std::uint64_t expected_ = 0;
};

}  // namespace eclip::replay
