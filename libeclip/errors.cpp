#include "libeclip/errors.h"

#include <algorithm>
#include <array>

#include "eclip/eclip.h"

namespace eclip {
namespace {

// A plain array: it needs no destructor, so that calls from other thread-local objects' destructors
// are safe, and no allocation, so that reporting cannot fail.
thread_local std::array<char, 512> last_error_text{};

}  // namespace

int errno_of(const Error& error) noexcept {
  if (error.code.category() != eclip_category()) return error.code.value();
  switch (static_cast<Errc>(error.code.value())) {
    case Errc::ok:
      return EIO;  // an error without a cause
    case Errc::invalid_argument:
      return EINVAL;
    case Errc::malformed:
    case Errc::version_mismatch:
      return EPROTO;
    case Errc::budget_exceeded:
    case Errc::no_stream:
    case Errc::already_in_use:
      return EBUSY;
    case Errc::lease_ended:
      return ESTALE;
    case Errc::cancelled:
      return ECANCELED;
    case Errc::not_found:
      return ENOENT;
    case Errc::quota_exceeded:
      return EDQUOT;
    case Errc::gone:
      return ECONNRESET;
    case Errc::timed_out:
      return ETIMEDOUT;
    case Errc::again:
      return EAGAIN;
    case Errc::access_denied:
      return EACCES;
    case Errc::unsupported:
      return ENOTSUP;
    case Errc::device_failed:
      return EIO;
  }
  return EIO;  // from a newer eclipd; the text says more
}

int report(int errno_value, std::string_view text) noexcept {
  const std::size_t size = std::min(text.size(), last_error_text.size() - 1);
  std::copy_n(text.begin(), size, last_error_text.begin());
  last_error_text[size] = '\0';
  return -errno_value;
}

int report(const Error& error) noexcept {
  try {
    return report(errno_of(error), error.message());
  } catch (...) {
    return report(errno_of(error), error.context);
  }
}

const char* last_error() noexcept {
  return last_error_text.data();
}

}  // namespace eclip

const char* eclip_last_error(void) {
  return eclip::last_error();
}
