// Exit codes of eclip-replay, part of its interface.
#pragma once

namespace eclip::replay {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;
inline constexpr int exit_no_daemon = 3;

}  // namespace eclip::replay
