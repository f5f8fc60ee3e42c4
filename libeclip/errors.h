// What the C ABI returns when something failed, and what eclip_last_error() then says.
#pragma once

#include <cxxabi.h>

#include <cerrno>
#include <exception>
#include <new>
#include <string_view>

#include "ipc/result.h"

namespace eclip {

/// The errno value for an Error, positive. Errc::gone is ECONNRESET; eclip_connect maps it itself.
int errno_of(const Error& error) noexcept;

/// Remembers `text`, cut to what fits, as the calling thread's last error; returns -errno_value.
int report(int errno_value, std::string_view text) noexcept;
int report(const Error& error) noexcept;

const char* last_error() noexcept;

/// Runs the body of a C function, which returns 0 or -errno, and keeps exceptions from its caller.
template <class Body>
int guarded(Body&& body) {
  try {
    return body();
  } catch (abi::__forced_unwind&) {
    throw;  // pthread_cancel: swallowing it would end the process
  } catch (const std::bad_alloc&) {
    return report(ENOMEM, "the host is out of memory");
  } catch (const std::exception& exception) {
    return report(EIO, exception.what());
  } catch (...) {
    return report(EIO, "an unknown exception");
  }
}

}  // namespace eclip
