#include "ipc/cu_mask.h"

#include <algorithm>
#include <bit>
#include <charconv>

namespace eclip {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

Result<std::uint32_t> parse_number(std::string_view text) {
  text = trimmed(text);
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size())
    return fail(Errc::invalid_argument, "'" + std::string(text) + "' is not a number");
  return value;
}

/// Calls `take(first, last)` for each part of "A,B-C,...". Errors name the part.
template <class Take>
Result<void> for_each_range(std::string_view list, Take take) {
  while (true) {
    const auto comma = list.find(',');
    const std::string_view part = trimmed(list.substr(0, comma));
    const auto dash = part.find('-');
    const auto first = parse_number(part.substr(0, dash));
    if (!first) return tl::unexpected(first.error());
    const auto last = dash == std::string_view::npos ? first : parse_number(part.substr(dash + 1));
    if (!last) return tl::unexpected(last.error());
    if (*last < *first)
      return fail(Errc::invalid_argument, "range '" + std::string(part) + "' runs backwards");
    if (auto taken = take(*first, *last); !taken) return taken;
    if (comma == std::string_view::npos) return {};
    list.remove_prefix(comma + 1);
  }
}

}  // namespace

CuMask::CuMask(std::uint32_t cu_count)
    : size_(std::clamp(cu_count, 1U, max_size)), words_((size_ + 31) / 32) {}

CuMask CuMask::full(std::uint32_t cu_count) {
  CuMask mask(cu_count);
  for (std::uint32_t cu = 0; cu < mask.size(); ++cu) mask.insert(cu);
  return mask;
}

Result<CuMask> CuMask::from_words(std::uint32_t cu_count, std::span<const std::uint32_t> words) {
  CuMask mask(cu_count);
  for (std::uint32_t cu = 0; cu < words.size() * 32; ++cu) {
    if ((words[cu / 32] >> (cu % 32) & 1U) == 0) continue;
    if (cu >= mask.size())
      return fail(Errc::invalid_argument, "CU mask names CU " + std::to_string(cu) +
                                              "; the GPU has CUs 0-" +
                                              std::to_string(mask.size() - 1));
    mask.insert(cu);
  }
  return mask;
}

Result<CuMask> CuMask::parse(std::string_view cu_list, std::uint32_t cu_count) {
  CuMask mask(cu_count);
  const auto outside = [&](std::uint64_t cu) {
    return fail(Errc::invalid_argument,
                "CU " + std::to_string(cu) + " in '" + std::string(cu_list) +
                    "' is outside the GPU, which has CUs 0-" + std::to_string(mask.size() - 1));
  };
  const std::string_view text = trimmed(cu_list);
  if (text.starts_with("0x") || text.starts_with("0X")) {
    const std::string_view digits = text.substr(2);
    if (digits.empty())
      return fail(Errc::invalid_argument, "'" + std::string(text) + "' has no hex digits");
    for (std::size_t i = 0; i < digits.size(); ++i) {
      std::uint32_t nibble = 0;
      const char* digit = digits.data() + digits.size() - 1 - i;
      if (std::from_chars(digit, digit + 1, nibble, 16).ec != std::errc{})
        return fail(Errc::invalid_argument, "'" + std::string(text) + "' is not a hex number");
      for (std::uint32_t bit = 0; bit < 4; ++bit) {
        if ((nibble >> bit & 1U) == 0) continue;
        if (i * 4 + bit >= mask.size()) return outside(i * 4 + bit);
        mask.insert(static_cast<std::uint32_t>(i * 4 + bit));
      }
    }
    return mask;
  }
  const auto taken =
      for_each_range(text, [&](std::uint32_t first, std::uint32_t last) -> Result<void> {
        if (last >= mask.size()) return outside(last);
        for (std::uint32_t cu = first; cu <= last; ++cu) mask.insert(cu);
        return {};
      });
  if (!taken) return fail(taken.error(), "CU list '" + std::string(text) + "'");
  return mask;
}

std::uint32_t CuMask::count() const {
  std::uint32_t total = 0;
  for (const auto word : words_) total += static_cast<std::uint32_t>(std::popcount(word));
  return total;
}

bool CuMask::contains(std::uint32_t cu) const {
  return cu < size_ && (words_[cu / 32] >> (cu % 32) & 1U) != 0;
}

void CuMask::insert(std::uint32_t cu) {
  if (cu < size_) words_[cu / 32] |= 1U << (cu % 32);
}

std::string CuMask::to_string() const {
  std::string text;
  for (std::uint32_t cu = 0; cu < size_; ++cu) {
    if (!contains(cu)) continue;
    const std::uint32_t first = cu;
    while (contains(cu + 1)) ++cu;
    if (!text.empty()) text += ',';
    text += std::to_string(first);
    if (cu != first) text += '-' + std::to_string(cu);
  }
  return text;
}

std::uint32_t CuMask::overlap(const CuMask& other) const {
  std::uint32_t total = 0;
  for (std::size_t i = 0; i < std::min(words_.size(), other.words_.size()); ++i)
    total += static_cast<std::uint32_t>(std::popcount(words_[i] & other.words_[i]));
  return total;
}

Result<std::vector<CuMaskEntry>> parse_hsa_cu_mask(std::string_view text) {
  std::vector<CuMaskEntry> entries;
  while (true) {
    const auto semicolon = text.find(';');
    const std::string_view set = trimmed(text.substr(0, semicolon));
    const auto colon = set.find(':');
    if (colon == std::string_view::npos)
      return fail(Errc::invalid_argument,
                  "'" + std::string(set) + "' is not GPU_list:CU_list, as in 0:0-15,32-47");
    CuMaskEntry entry{.gpus = {}, .cu_list = std::string(trimmed(set.substr(colon + 1)))};
    const auto gpus = for_each_range(
        set.substr(0, colon), [&](std::uint32_t first, std::uint32_t last) -> Result<void> {
          if (last >= CuMask::max_size)
            return fail(Errc::invalid_argument, "GPU " + std::to_string(last) + " is too large");
          for (std::uint32_t gpu = first; gpu <= last; ++gpu) entry.gpus.push_back(gpu);
          return {};
        });
    if (!gpus) return fail(gpus.error(), "GPU list of '" + std::string(set) + "'");
    entries.push_back(std::move(entry));
    if (semicolon == std::string_view::npos) return entries;
    text.remove_prefix(semicolon + 1);
  }
}

}  // namespace eclip
