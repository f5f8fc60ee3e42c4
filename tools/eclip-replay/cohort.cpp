#include "tools/eclip-replay/cohort.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "ipc/futex.h"
#include "ipc/region.h"

namespace eclip::replay {
namespace {

/// How soon a stop or a death is noticed, which wakes nobody.
constexpr std::chrono::milliseconds longest_sleep{100};
/// Locked bytes stand behind the board, where nothing is ever written.
constexpr off_t first_lock = 65536;
static_assert(sizeof(CohortBoard) <= first_lock);

struct ::flock lock_of(std::size_t member) {
  struct ::flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = first_lock + static_cast<off_t>(member);
  lock.l_len = 1;
  return lock;
}

/// Whether another process holds the member's byte.
bool lives(int fd, std::size_t member) {
  struct ::flock lock = lock_of(member);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/// Sole use of a file, among those that ask for it.
class FileLock {
 public:
  explicit FileLock(int fd) : fd_(fd) {
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock() { ::flock(fd_, LOCK_UN); }

 private:
  int fd_;
};

}  // namespace

Result<Cohort> Cohort::join(const CohortChoice& choice) {
  const std::string path = choice.path.string();
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "open the cohort file " + path);
  const FileLock lock(fd.get());
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "examine " + path);
  if (status.st_size != 0 && status.st_size != static_cast<off_t>(sizeof(CohortBoard)))
    return fail(Errc::invalid_argument, path + " is not a cohort file; name another");
  const bool is_new = status.st_size == 0;
  if (is_new && ::ftruncate(fd.get(), sizeof(CohortBoard)) != 0)
    return fail_errno(errno, "size the cohort file " + path);
  const int number = fd.get();
  auto mapping = map_memfd(number, true, sizeof(CohortBoard));
  if (!mapping) return fail(mapping.error(), path);
  Cohort cohort(std::move(fd), std::move(*mapping), path);
  CohortBoard& board = cohort.board();
  if (!is_new && board.magic != CohortBoard::expected_magic)
    return fail(Errc::invalid_argument, path + " is not a cohort file; name another");
  bool anyone = false;
  for (std::size_t i = 0; i < CohortBoard::max_members; ++i) anyone = anyone || lives(number, i);
  if (!anyone) {
    new (&board) CohortBoard{};
    board.magic = CohortBoard::expected_magic;
    board.count = choice.count;
  }
  if (auto entered = cohort.enter(choice.count); !entered) return tl::unexpected(entered.error());
  return cohort;
}

Result<void> Cohort::enter(std::uint32_t count) {
  CohortBoard& cohort = board();
  if (cohort.count != count)
    return fail(Errc::invalid_argument,
                fmt::format("{} is a cohort of {}, not of {} workers", path_, cohort.count, count));
  self_ = cohort.joined.load();
  if (self_ >= count)
    return fail(
        Errc::already_in_use,
        fmt::format("all {} workers of {} are there already; name another file", count, path_));
  struct ::flock lock = lock_of(self_);
  if (::fcntl(fd_.get(), F_OFD_SETLK, &lock) != 0)
    return fail_errno(errno, "lock a byte of the cohort file " + path_);
  cohort.members[self_].pid = static_cast<std::uint32_t>(::getpid());
  cohort.joined.fetch_add(1);
  futex_wake_all(cohort.joined);
  return {};
}

Result<void> Cohort::check_alive(std::size_t member) const {
  if (member == self_ || lives(fd_.get(), member)) return {};
  const CohortBoard::Member& other = board().members[member];
  if (other.finished.load() != 0) return {};
  return fail(Errc::gone,
              fmt::format("worker {} of the cohort {} ended before it had measured; see "
                          "what it said",
                          other.pid, path_));
}

Result<bool> Cohort::wait_for_all(std::chrono::nanoseconds timeout,
                                  const std::atomic<bool>& stop) const {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    const std::uint32_t joined = board().joined.load();
    if (joined >= board().count) return true;
    if (stop) return false;
    for (std::size_t i = 0; i < joined; ++i) {
      if (auto alive = check_alive(i); !alive) return tl::unexpected(alive.error());
    }
    const auto left = deadline - Clock::now();
    if (left <= left.zero())
      return fail(Errc::timed_out,
                  fmt::format("only {} of the cohort's {} workers joined {} in time; start the "
                              "others or wait longer with --timeout-s",
                              joined, board().count, path_));
    futex_wait(board().joined, joined, std::min<std::chrono::nanoseconds>(left, longest_sleep));
  }
}

void Cohort::count_request() {
  board().members[self_].requests.fetch_add(1);
}

void Cohort::finish() {
  board().members[self_].finished.store(1);
}

Result<bool> Cohort::all_finished(std::chrono::nanoseconds timeout) {
  bool all = true;
  for (std::size_t i = 0; i < board().joined.load(); ++i) {
    const CohortBoard::Member& member = board().members[i];
    if (member.finished.load() != 0) continue;
    all = false;
    if (auto alive = check_alive(i); !alive) return tl::unexpected(alive.error());
    const std::uint64_t requests = member.requests.load();
    if (requests != progress_[i].requests) {
      progress_[i] = {requests, Clock::now()};
    } else if (Clock::now() - progress_[i].at > timeout) {
      return fail(Errc::timed_out,
                  fmt::format("worker {} of the cohort {} completes no requests any more",
                              member.pid, path_));
    }
  }
  return all;
}

}  // namespace eclip::replay
