#include "daemon/peer.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

namespace eclip::daemon {
namespace {

class PeerTest : public ::testing::Test {
 protected:
  PeerTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
  }
  UniqueFd ours_;
  UniqueFd theirs_;
};

TEST_F(PeerTest, ItIsKnownByPidStartTimeAndPidfd) {
  const auto peer = identify_peer(ours_.get());
  ASSERT_TRUE(peer) << peer.error().message();
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::getuid());
  EXPECT_TRUE(peer->pidfd);
  EXPECT_EQ(peer->start_ticks, read_start_ticks(::getpid()).value());
  EXPECT_GT(peer->start_ticks, 0U);
}

TEST_F(PeerTest, ACommandNamedLikeFieldsOfStatDoesNotChangeTheStartTime) {
  const auto before = read_start_ticks(::getpid());
  ASSERT_TRUE(before);
  ::prctl(PR_SET_NAME, "x) R 1 1 1 1");
  EXPECT_EQ(read_start_ticks(::getpid()).value(), *before);
}

TEST_F(PeerTest, AClientThatHasClosedIsGone) {
  theirs_.reset();
  const auto peer = identify_peer(ours_.get());
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().code, Errc::gone);
}

TEST_F(PeerTest, AProcessThatHasEndedHasNoStartTime) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(read_start_ticks(child));
}

}  // namespace
}  // namespace eclip::daemon
