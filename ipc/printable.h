// Text of a peer, made safe for logs and terminals.
#pragma once

#include <string>
#include <string_view>

namespace eclip {

/// `text` with a '?' for every byte that is no printable ASCII character: no new lines, no escape
/// sequences, in whatever encoding.
inline std::string printable(std::string_view text) {
  std::string clean(text);
  for (char& c : clean)
    if (c < 0x20 || c > 0x7e) c = '?';
  return clean;
}

}  // namespace eclip
