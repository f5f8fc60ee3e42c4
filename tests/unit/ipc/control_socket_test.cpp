#include "ipc/control_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "ipc/region.h"

namespace eclip {
namespace {

using std::chrono::milliseconds;

class ControlSocket : public ::testing::Test {
 protected:
  ControlSocket() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0) {
      client_.reset(ends[0]);
      server_.reset(ends[1]);
    }
  }
  UniqueFd client_;
  UniqueFd server_;
};

TEST_F(ControlSocket, CarriesAMessageAndItsDescriptors) {
  const auto memfd = create_sealed_memfd("passed", 123);
  ASSERT_TRUE(memfd);
  const std::array fds{memfd->get()};
  ASSERT_TRUE(
      send_message(client_.get(), make_message(MessageType::code_load, 5, Handle{99}), fds));
  auto received = receive_message(server_.get());
  ASSERT_TRUE(received && received->has_value());
  EXPECT_EQ((*received)->message.header.sequence, 5U);
  EXPECT_EQ(payload_of<Handle>((*received)->message).value, 99U);
  ASSERT_EQ((*received)->fds.size(), 1U);
  struct stat status {};
  ASSERT_EQ(::fstat((*received)->fds[0].get(), &status), 0);
  EXPECT_EQ(status.st_size, 123);
}

TEST_F(ControlSocket, AMessageOfTheWrongSizeIsMalformed) {
  ASSERT_EQ(::send(client_.get(), "short", 5, 0), 5);
  EXPECT_EQ(receive_message(server_.get()).error().code, Errc::malformed);
  const std::array<char, 300> longer{};
  ASSERT_EQ(::send(client_.get(), longer.data(), longer.size(), 0), 300);
  EXPECT_EQ(receive_message(server_.get()).error().code, Errc::malformed);
}

TEST_F(ControlSocket, NothingThereIsNotAnErrorAndAClosedPeerIs) {
  const auto received = receive_message(server_.get());
  ASSERT_TRUE(received);
  EXPECT_FALSE(received->has_value());
  client_.reset();
  EXPECT_EQ(receive_message(server_.get()).error().code, Errc::gone);
}

TEST_F(ControlSocket, ASilentPeerEndsInATimeOut) {
  const auto reply = exchange(client_.get(), make_message(MessageType::get_status, 1, Handle{0}),
                              {}, milliseconds(10));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::timed_out);
}

TEST_F(ControlSocket, ALateReplyToAnEarlierRequestIsPassedOver) {
  ASSERT_TRUE(send_message(server_.get(), make_message(MessageType::ok, 1, Handle{1})));
  ASSERT_TRUE(send_message(server_.get(), make_message(MessageType::ok, 2, Handle{2})));
  const auto reply = exchange(client_.get(), make_message(MessageType::get_status, 2, Handle{0}),
                              {}, milliseconds(1000));
  ASSERT_TRUE(reply);
  EXPECT_EQ(payload_of<Handle>(reply->message).value, 2U);
}

TEST_F(ControlSocket, AnErrorReplyBecomesTheCallersError) {
  ASSERT_TRUE(send_message(
      server_.get(), make_error(3, Error{make_error_code(Errc::no_stream), "all are in use"})));
  const auto reply = exchange(client_.get(), make_message(MessageType::lease_acquire, 3, Handle{0}),
                              {}, milliseconds(1000));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::no_stream);
  EXPECT_EQ(reply.error().message(), "all are in use");
}

TEST(ConnectControl, AnAbsentDaemonIsReportedAtOnceWithThePath) {
  const auto socket = connect_control("/nonexistent/eclipd.sock", milliseconds(1000));
  ASSERT_FALSE(socket);
  EXPECT_EQ(socket.error().code, Errc::gone);
  EXPECT_NE(socket.error().message().find("/nonexistent/eclipd.sock"), std::string::npos);
}

TEST(ConnectControl, APathThatIsTooLongIsReported) {
  EXPECT_EQ(connect_control(std::string(300, 'x'), milliseconds(10)).error().code,
            Errc::invalid_argument);
}

}  // namespace
}  // namespace eclip
