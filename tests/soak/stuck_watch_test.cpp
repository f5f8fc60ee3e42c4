#include "tests/soak/stuck_watch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fake/eventually.h"

namespace eclip::soak {
namespace {

using std::chrono::milliseconds;

/// A process that ends with this one.
class Companion {
 public:
  template <class Body>
  explicit Companion(Body body) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }
  ~Companion() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(StuckWatch, TellsOnceOfAProcessThatWaitsUninterruptibly) {
  // A parent waits in state D until its child of vfork lets go of its memory.
  const Companion companion([] {
    if (::vfork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // nor does it keep the test's output open
      while (true) ::pause();
    }
  });
  StuckWatch watch(milliseconds(100));
  EXPECT_TRUE(test::eventually([&] { return watch.look(companion.pid()); }));
  EXPECT_FALSE(test::eventually([&] { return watch.look(companion.pid()); }, milliseconds(300)));
}

TEST(StuckWatch, SleepersAreNotStuck) {
  const Companion companion([] { ::pause(); });
  StuckWatch watch(milliseconds(0));
  EXPECT_FALSE(test::eventually([&] { return watch.look(companion.pid()); }, milliseconds(300)));
}

}  // namespace
}  // namespace eclip::soak
