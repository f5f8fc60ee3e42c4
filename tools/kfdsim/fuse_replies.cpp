#include "tools/kfdsim/fuse_replies.h"

#include <linux/fuse.h>
#include <poll.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

namespace eclip::kfdsim {
namespace {

void send(int fd, std::uint64_t unique, int error, std::span<const iovec> body) {
  fuse_out_header header{};
  header.unique = unique;
  header.error = error;
  std::array<iovec, 4> parts{};
  std::size_t count = 0;
  parts.at(count++) = {&header, sizeof header};
  std::size_t length = sizeof header;
  for (const iovec& part : body) {
    length += part.iov_len;
    parts.at(count++) = part;
  }
  header.len = static_cast<std::uint32_t>(length);
  // The page server's link can be full for a moment: the page server always takes what is there.
  while (::writev(fd, parts.data(), static_cast<int>(count)) < 0) {
    if (errno == EAGAIN) {
      pollfd writable{fd, POLLOUT, 0};
      ::poll(&writable, 1, -1);
    } else if (errno != EINTR) {
      return;  // ENOENT: the requester is gone; nobody is left to be told
    }
  }
}

}  // namespace

void reply(int fd, std::uint64_t unique, std::span<const std::byte> body) {
  const iovec part{const_cast<std::byte*>(body.data()), body.size()};
  send(fd, unique, 0, {&part, 1});
}

void reply_errno(int fd, std::uint64_t unique, int errno_value) {
  send(fd, unique, -errno_value, {});
}

void reply_ioctl(int fd, std::uint64_t unique, int result, std::span<const std::byte> out) {
  fuse_ioctl_out answer{};
  answer.result = result;
  const std::array<iovec, 2> parts{iovec{&answer, sizeof answer},
                                   iovec{const_cast<std::byte*>(out.data()), out.size()}};
  send(fd, unique, 0, parts);
}

}  // namespace eclip::kfdsim
