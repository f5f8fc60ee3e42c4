// Integers that cannot be mistaken for one another.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace eclip {

/// An identifier of type `Rep`; two StrongIds with different tags do not convert to each other.
template <class Tag, class Rep>
struct StrongId {
  using rep = Rep;
  Rep value{};

  friend constexpr auto operator<=>(StrongId, StrongId) = default;
};

using GpuId = StrongId<struct GpuIdTag, std::uint32_t>;        ///< topology node of a GPU
using StreamId = StrongId<struct StreamIdTag, std::uint32_t>;  ///< index in a GPU's pool
using WorkerId = StrongId<struct WorkerIdTag, std::uint64_t>;  ///< never reused by one eclipd
using LeaseId = StrongId<struct LeaseIdTag, std::uint64_t>;    ///< never reused by one eclipd

}  // namespace eclip

template <class Tag, class Rep>
struct std::hash<eclip::StrongId<Tag, Rep>> {
  std::size_t operator()(eclip::StrongId<Tag, Rep> id) const noexcept {
    return std::hash<Rep>{}(id.value);
  }
};
