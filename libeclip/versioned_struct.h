// Structs of the C ABI whose first field says how large the caller's version is.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "eclip/eclip.h"
#include "libeclip/errors.h"

namespace eclip {

/// Size that each struct had in ECLIP_1.0. A struct that grows gets a specialisation with its first
/// size, so that old callers stay welcome.
template <class Struct>
inline constexpr std::uint32_t first_struct_size = sizeof(Struct);

template <>
inline constexpr std::uint32_t first_struct_size<eclip_connect_options> = 40;
template <>
inline constexpr std::uint32_t first_struct_size<eclip_lease_request> = 12;
template <>
inline constexpr std::uint32_t first_struct_size<eclip_lease_state> = 32;

/// Larger than any version will be; a struct_size above it was never initialised.
inline constexpr std::uint32_t largest_struct_size = 4096;

/// 0 or -EINVAL with the reason.
template <class Struct>
int check_struct_size(const Struct* from) {
  static_assert(std::is_standard_layout_v<Struct> && std::is_trivially_copyable_v<Struct>);
  if (from == nullptr) return report(EINVAL, "a struct of the call is NULL");
  if (from->struct_size < first_struct_size<Struct> || from->struct_size > largest_struct_size)
    return report(EINVAL, "struct_size is " + std::to_string(from->struct_size) +
                              "; set it to the struct's sizeof, " + std::to_string(sizeof(Struct)));
  return 0;
}

/// Copies the fields that the caller's version has; newer ones of ours stay zero, newer ones of the
/// caller's are ignored.
template <class Struct>
int read_struct(const Struct* from, Struct& to) {
  if (const int failed = check_struct_size(from); failed != 0) return failed;
  to = {};
  std::memcpy(static_cast<void*>(&to), from,
              std::min<std::size_t>(from->struct_size, sizeof(Struct)));
  return 0;
}

/// Fills what the caller's version has; what only the caller's version has becomes zero. The
/// caller's struct_size has been checked and stays.
template <class Struct>
void write_struct(const Struct& from, Struct* to) {
  const std::uint32_t size = to->struct_size;
  std::memset(static_cast<void*>(to), 0, size);
  std::memcpy(static_cast<void*>(to), &from, std::min<std::size_t>(size, sizeof(Struct)));
  to->struct_size = size;
}

}  // namespace eclip
