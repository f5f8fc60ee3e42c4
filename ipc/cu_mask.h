// Sets of compute units (CUs), as the KFD's SET_CU_MASK takes them and as ROCm users write them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/result.h"

namespace eclip {

/// A set of CU indices below a fixed size. The size is 1..max_size and never changes; bits at and
/// above it are clear. Index i is bit i of the KFD's mask (which shader engine that is depends on
/// the GPU: daemon/topology.h).
class CuMask {
 public:
  static constexpr std::uint32_t max_size = 1024;

  /// The empty set over CUs 0 .. cu_count-1; cu_count is clamped to 1..max_size.
  explicit CuMask(std::uint32_t cu_count);
  /// All of 0 .. cu_count-1.
  static CuMask full(std::uint32_t cu_count);
  /// The set that `words` (32 CUs each, lowest first) describe. Errc::invalid_argument when a bit
  /// at or above cu_count is set.
  static Result<CuMask> from_words(std::uint32_t cu_count, std::span<const std::uint32_t> words);
  /// A CU list of the HSA_CU_MASK grammar: "0-15,32-47" or hex "0xffff". Errc::invalid_argument
  /// with the offending part when it is malformed or names a CU at or above cu_count.
  static Result<CuMask> parse(std::string_view cu_list, std::uint32_t cu_count);

  [[nodiscard]] std::uint32_t size() const { return size_; }  ///< CUs of the GPU
  [[nodiscard]] std::uint32_t count() const;                  ///< CUs in the set
  [[nodiscard]] bool empty() const { return count() == 0; }
  [[nodiscard]] bool contains(std::uint32_t cu) const;
  void insert(std::uint32_t cu);  ///< does nothing when cu >= size()

  /// 32 CUs a word, lowest first, ceil(size/32) words: what SET_CU_MASK takes.
  [[nodiscard]] std::span<const std::uint32_t> words() const { return words_; }
  /// The set as a CU list, "0-15,32-47"; "" when empty.
  [[nodiscard]] std::string to_string() const;

  /// CUs in both sets; the shorter size counts.
  [[nodiscard]] std::uint32_t overlap(const CuMask& other) const;
  friend bool operator==(const CuMask&, const CuMask&) = default;

 private:
  std::uint32_t size_;
  std::vector<std::uint32_t> words_;
};

/// One CU_Set of HSA_CU_MASK: the GPUs that it is for, and its CU list, not yet checked against a
/// GPU's size (CuMask::parse does that).
struct CuMaskEntry {
  std::vector<std::uint32_t> gpus;
  std::string cu_list;
};

/// Splits the whole HSA_CU_MASK grammar, "GPU_list : CU_list [; ...]", for example
/// "0:0-15,32-47; 1-2:0xff". Errc::invalid_argument names the offending part.
Result<std::vector<CuMaskEntry>> parse_hsa_cu_mask(std::string_view text);

}  // namespace eclip
