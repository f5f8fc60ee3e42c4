// Replies to FUSE requests, written to /dev/fuse or to the page server's link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace eclip::kfdsim {

/// Completes the request successfully with these bytes.
void reply(int fd, std::uint64_t unique, std::span<const std::byte> body);
template <class T>
void reply_object(int fd, std::uint64_t unique, const T& body) {
  reply(fd, unique, std::as_bytes(std::span<const T, 1>(&body, 1)));
}
/// Fails the request with a (positive) errno value; 0 is a success without a body.
void reply_errno(int fd, std::uint64_t unique, int errno_value);
/// Completes an IOCTL with its result (0 or -errno) and the bytes for the caller's argument.
void reply_ioctl(int fd, std::uint64_t unique, int result, std::span<const std::byte> out);

}  // namespace eclip::kfdsim
