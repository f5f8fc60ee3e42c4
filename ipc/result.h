// How the project reports that the environment or a peer failed: a value or an Error, no exception.
#pragma once

#include <string>
#include <string_view>
#include <system_error>
#include <tl/expected.hpp>
#include <utility>

namespace eclip {

/// Failures that are ECLIP's own; those of the system keep std::generic_category().
/// The numbers are part of the control protocol (ipc/messages.h): append, never renumber.
enum class Errc : int {
  ok = 0,
  invalid_argument = 1,  ///< the caller's value; the message names it
  malformed = 2,         ///< bytes from a file or peer do not have the agreed form
  version_mismatch = 3,  ///< the peer speaks another layout or protocol version
  budget_exceeded = 4,   ///< more CU-masked streams than the GPU's budget
  no_stream = 5,         ///< no stream of the pool that fits is free
  not_found = 6,         ///< the handle or name is not known
  quota_exceeded = 7,    ///< the worker holds as much as it may
  gone = 8,              ///< the daemon or the peer is no longer there
  timed_out = 9,         ///< the deadline passed
  again = 10,            ///< no room now; try later
  access_denied = 11,    ///< the peer's identity does not allow it
  unsupported = 12,      ///< this machine or this version cannot do it
  device_failed = 13,    ///< libhsakmt or the driver refused
  already_in_use = 14,   ///< somebody else holds it
  lease_ended = 15,      ///< the lease was revoked or has ended; plan anew
  cancelled = 16,        ///< not done: its packet was dropped with its lease
};

/// Category of Errc: name "eclip", messages in plain words.
const std::error_category& eclip_category() noexcept;

inline std::error_code make_error_code(Errc errc) noexcept {
  return {static_cast<int>(errc), eclip_category()};
}

/// What failed and, in words, what was tried, on what, and what the reader can do next.
struct Error {
  std::error_code code;
  std::string context;

  /// "CONTEXT: CODE'S MESSAGE" for errors of the system, CONTEXT alone for ECLIP's own.
  [[nodiscard]] std::string message() const;
};

template <class T>
using Result = tl::expected<T, Error>;

/// An Error with an ECLIP code, ready to return from a function that returns a Result.
[[nodiscard]] inline tl::unexpected<Error> fail(Errc errc, std::string context) {
  return tl::unexpected<Error>(Error{make_error_code(errc), std::move(context)});
}

/// An Error with the given errno value.
[[nodiscard]] inline tl::unexpected<Error> fail_errno(int errno_value, std::string context) {
  return tl::unexpected<Error>(
      Error{std::error_code(errno_value, std::generic_category()), std::move(context)});
}

/// Passes an Error on with words put before it.
[[nodiscard]] inline tl::unexpected<Error> fail(Error error, std::string_view before) {
  error.context.insert(0, std::string(before) + ": ");
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace eclip

template <>
struct std::is_error_code_enum<eclip::Errc> : std::true_type {};
