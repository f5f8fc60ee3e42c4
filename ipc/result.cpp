#include "ipc/result.h"

namespace eclip {
namespace {

class EclipCategory final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "eclip"; }
  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {
      case Errc::ok:
        return "no error";
      case Errc::invalid_argument:
        return "invalid argument";
      case Errc::malformed:
        return "malformed bytes";
      case Errc::version_mismatch:
        return "version mismatch";
      case Errc::budget_exceeded:
        return "stream budget exceeded";
      case Errc::no_stream:
        return "no free stream fits";
      case Errc::not_found:
        return "not found";
      case Errc::quota_exceeded:
        return "quota exceeded";
      case Errc::gone:
        return "peer gone";
      case Errc::timed_out:
        return "timed out";
      case Errc::again:
        return "no room now";
      case Errc::access_denied:
        return "access denied";
      case Errc::unsupported:
        return "not supported here";
      case Errc::device_failed:
        return "device failed";
      case Errc::already_in_use:
        return "already in use";
      case Errc::lease_ended:
        return "lease revoked or ended";
      case Errc::cancelled:
        return "cancelled";
    }
    return "unknown error " + std::to_string(value);
  }
};

}  // namespace

const std::error_category& eclip_category() noexcept {
  static const EclipCategory category;
  return category;
}

std::string Error::message() const {
  if (context.empty()) return code.message();
  return code.category() == eclip_category() ? context : context + ": " + code.message();
}

}  // namespace eclip
