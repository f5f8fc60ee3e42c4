#include "tools/kfdsim/page_server.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/client_process.h"
#include "tools/kfdsim/page_requests.h"

namespace eclip::kfdsim {
namespace {

[[noreturn]] void serve_pages(UniqueFd device, UniqueFd link, pid_t kfdsim) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != kfdsim) ::_exit(EXIT_FAILURE);  // it died before the line above
  ::prctl(PR_SET_NAME, "kfdsim-pages");
  // The terminal's signals reach the whole group, and are for COMMAND.
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  auto owner = ClientProcess::create(kfdsim, 0);
  if (!owner) ::_exit(EXIT_FAILURE);
  PageRequests requests(std::move(device), std::move(link), **owner);
  requests.serve();
  ::_exit(EXIT_SUCCESS);
}

}  // namespace

Result<PageServer> PageServer::start(UniqueFd fuse_device) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < BackingMemory::size_bytes) {
    return fail(Errc::quota_exceeded,
                "a client's GPU memory is larger than files may be: raise the limit (ulimit -f "
                "unlimited)");
  }
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t self = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start the process that serves pages");
  if (child == 0) {
    ours.reset();
    serve_pages(std::move(fuse_device), std::move(theirs), self);
  }
  return PageServer(child, std::move(ours));
}

PageServer::PageServer(PageServer&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), link_(std::move(other.link_)) {}

PageServer::~PageServer() {
  link_.reset();
  if (pid_ <= 0) return;
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace eclip::kfdsim
