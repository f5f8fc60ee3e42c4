// Connecting: with, without and to the wrong eclipd.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

const std::string absent = "/nonexistent/eclipd.sock";

// In processes of their own: "once per process" is what is tested.
TEST(AbsentDeathTest, IsSaidOnceThroughTheCallback) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto connect_twice = [] {
    int lines = 0;
    eclip_connect_options options = options_for(absent);
    options.log_user = &lines;
    options.log = [](void* user, const char* line) {
      *static_cast<int*>(user) +=
          std::string(line) == "eclip: eclipd is not running (nobody listens on " + absent +
                                   "); continuing without ECLIP"
              ? 1
              : 100;
    };
    eclip_context* context = nullptr;
    const bool refused = eclip_connect(&options, &context) == -ENOTCONN &&
                         eclip_connect(&options, &context) == -ENOTCONN;
    std::exit(refused && context == nullptr ? lines : 99);
  };
  EXPECT_EXIT(connect_twice(), ::testing::ExitedWithCode(1), "");
}

TEST(AbsentDeathTest, IsSaidOnStandardErrorByDefault) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto connect = [] {
    ::setenv("ECLIP_SOCKET", absent.c_str(), 1);
    eclip_context* context = nullptr;
    std::exit(-eclip_connect(nullptr, &context) == ENOTCONN ? 0 : 1);
  };
  EXPECT_EXIT(connect(), ::testing::ExitedWithCode(0), "nobody listens on /nonexistent/eclipd");
}

TEST(Connect, NamesTheWorkerAndDescribesTheGpu) {
  FakeDaemon daemon;
  daemon.board().device_time_rate = 1ULL << 30U;
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path);
  eclip_context* context = nullptr;
  ASSERT_EQ(eclip_connect(&options, &context), 0) << eclip_last_error();
  const auto hellos = daemon.requests(MessageType::hello);
  ASSERT_EQ(hellos.size(), 1U);
  EXPECT_EQ(payload_of<Hello>(hellos[0]).worker_name.str(), "test worker");
  eclip_gpu gpu{};
  gpu.struct_size = sizeof gpu;
  ASSERT_EQ(eclip_gpu_describe(context, &gpu), 0);
  EXPECT_STREQ(gpu.name, "Test GPU (simulated)");
  EXPECT_EQ(gpu.cu_count, 60U);
  EXPECT_EQ(gpu.stream_count, 7U);
  EXPECT_DOUBLE_EQ(gpu.device_time_rate, 0.25);
  eclip_disconnect(context);
}

int connect_to(const FakeDaemon& daemon, std::uint32_t timeout_ms = 5000) {
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path, timeout_ms);
  eclip_context* context = nullptr;
  const int result = eclip_connect(&options, &context);
  EXPECT_EQ(context == nullptr, result != 0);
  eclip_disconnect(context);
  return result;
}

TEST(Connect, RefusesAnotherProtocolAndNamesBoth) {
  const FakeDaemon daemon({.answer = [](const Message& request) {
    Message reply = make_message(MessageType::welcome, request.header.sequence, Welcome{});
    reply.header.major = 9;
    return std::optional(std::vector{reply});
  }});
  EXPECT_EQ(connect_to(daemon), -EPROTO);
  EXPECT_THAT(eclip_last_error(), HasSubstr("9." + std::to_string(MessageHeader::protocol_minor)));
  EXPECT_THAT(eclip_last_error(), HasSubstr("install the same version"));
}

TEST(Connect, RefusesAnotherLayout) {
  FakeDaemon daemon;
  const_cast<RegionHeader&>(daemon.state_region().header()).major = 9;
  EXPECT_EQ(connect_to(daemon), -EPROTO);
  EXPECT_THAT(eclip_last_error(), HasSubstr("worker state: shared-memory layout 9"));
}

TEST(Connect, RefusesAWelcomeWithoutRegions) {
  const FakeDaemon daemon({.answer = [](const Message& request) {
    return std::optional(
        std::vector{make_message(MessageType::welcome, request.header.sequence, Welcome{})});
  }});
  EXPECT_EQ(connect_to(daemon), -EPROTO);
}

TEST(Connect, GivesUpOnASilentPeerInTime) {
  const FakeDaemon daemon(
      {.answer = [](const Message&) { return std::optional(std::vector<Message>{}); }});
  const auto start = Clock::now();
  EXPECT_EQ(connect_to(daemon, 50), -ETIMEDOUT);
  // poll() counts in whole milliseconds.
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(45));
  EXPECT_LT(Clock::now() - start, deadline);
}

TEST(Connect, ChecksTheStructSize) {
  const FakeDaemon daemon;
  const std::string path = daemon.path();
  eclip_connect_options options = options_for(path);
  eclip_context* context = nullptr;
  options.struct_size = 0;
  EXPECT_EQ(eclip_connect(&options, &context), -EINVAL);
  constexpr std::uint32_t size_in_1_0 = 40;
  options.struct_size = size_in_1_0 - 1;
  EXPECT_EQ(eclip_connect(&options, &context), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("struct_size is 39"));
  EXPECT_EQ(eclip_connect(&options, nullptr), -EINVAL);
  options.struct_size = size_in_1_0;
  EXPECT_EQ(eclip_connect(&options, &context), 0) << eclip_last_error();
  eclip_disconnect(context);
}

TEST(Connect, TakesLargerStructsOfNewerCallers) {
  const FakeDaemon daemon;
  const std::string path = daemon.path();
  struct {
    eclip_connect_options known;
    std::uint64_t newer;
  } options{options_for(path), 42};
  options.known.struct_size = sizeof options;
  eclip_context* context = nullptr;
  ASSERT_EQ(eclip_connect(&options.known, &context), 0) << eclip_last_error();
  struct {
    eclip_gpu known;
    std::uint64_t newer;
  } gpu{};
  gpu.known.struct_size = sizeof gpu;
  gpu.newer = 42;
  EXPECT_EQ(eclip_gpu_describe(context, &gpu.known), 0);
  EXPECT_EQ(gpu.known.cu_count, 60U);
  EXPECT_EQ(gpu.known.struct_size, sizeof gpu);
  EXPECT_EQ(gpu.newer, 0U);
  eclip_disconnect(context);
}

class Control : public Worker {};

TEST_F(Control, DescribesALease) {
  connect();
  eclip_lease* lease = acquire(30);
  eclip_lease_state state{};
  state.struct_size = sizeof state;
  ASSERT_EQ(eclip_lease_describe(lease, &state), 0);
  EXPECT_EQ(state.id, 101U);
  EXPECT_EQ(state.stream, 2U);
  EXPECT_EQ(state.cu_count, 30U);
  EXPECT_EQ(state.packets_submitted, 0U);
  submit(lease, some_dispatch());
  ASSERT_EQ(eclip_lease_describe(lease, &state), 0);
  EXPECT_EQ(state.packets_submitted, 1U);
}

TEST_F(Control, ReleasesALeaseOnceWhenAskedAndTheRestAtTheEnd) {
  connect();
  eclip_lease_release(acquire());
  ASSERT_EQ(daemon.requests(MessageType::lease_release).size(), 1U);
  acquire();
  eclip_disconnect(context);
  context = nullptr;
  const auto releases = daemon.requests(MessageType::lease_release);
  ASSERT_EQ(releases.size(), 2U);
  EXPECT_EQ(payload_of<Handle>(releases[0]).value, 101U);
  EXPECT_EQ(payload_of<Handle>(releases[1]).value, 102U);
}

TEST_F(Control, ReportsTheEndOfEclipd) {
  connect();
  eclip_lease* lease = acquire();
  daemon.die();
  std::uint32_t kernel = 0;
  EXPECT_EQ(eclip_kernel_register(context, 1, 0, 0, &kernel), -ECONNRESET);
  // What one request found out, submissions know.
  const eclip_dispatch dispatch = some_dispatch();
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -ECONNRESET);
}

TEST_F(Control, IsNotForTheChildOfAFork) {
  connect();
  acquire();
  const pid_t child = ::fork();
  if (child == 0) {
    std::uint32_t kernel = 0;
    const int result = eclip_kernel_register(context, 1, 0, 0, &kernel);
    eclip_disconnect(context);  // must not release the parent's lease
    ::_exit(result == -ECONNRESET ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(daemon.requests(MessageType::lease_release).empty());
  std::uint32_t kernel = 0;
  EXPECT_EQ(eclip_kernel_register(context, 1, 0, 0, &kernel), 0);
}

struct Refusal {
  Errc errc;
  int errno_value;
};

// For the tests' names.
void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << make_error_code(refusal.errc).message();
}

class ErrorReply : public ::testing::TestWithParam<Refusal> {};

TEST_P(ErrorReply, BecomesAnErrnoValueAndItsText) {
  const FakeDaemon daemon({.answer = [](const Message& request) {
    if (request.header.type == MessageType::hello) return std::optional<std::vector<Message>>();
    const Error error{make_error_code(GetParam().errc), "the daemon's words"};
    return std::optional(std::vector{make_error(request.header.sequence, error)});
  }});
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path);
  eclip_context* context = nullptr;
  ASSERT_EQ(eclip_connect(&options, &context), 0);
  eclip_lease_request request{};
  request.struct_size = sizeof request;
  request.stream = ECLIP_ANY_STREAM;
  eclip_lease* lease = nullptr;
  EXPECT_EQ(eclip_lease_acquire(context, &request, &lease), -GetParam().errno_value);
  EXPECT_STREQ(eclip_last_error(), "the daemon's words");
  EXPECT_EQ(lease, nullptr);
  eclip_disconnect(context);
}

INSTANTIATE_TEST_SUITE_P(
    Every, ErrorReply,
    ::testing::Values(Refusal{Errc::invalid_argument, EINVAL}, Refusal{Errc::malformed, EPROTO},
                      Refusal{Errc::version_mismatch, EPROTO},
                      Refusal{Errc::budget_exceeded, EBUSY}, Refusal{Errc::no_stream, EBUSY},
                      Refusal{Errc::not_found, ENOENT}, Refusal{Errc::quota_exceeded, EDQUOT},
                      Refusal{Errc::gone, ECONNRESET}, Refusal{Errc::timed_out, ETIMEDOUT},
                      Refusal{Errc::again, EAGAIN}, Refusal{Errc::access_denied, EACCES},
                      Refusal{Errc::unsupported, ENOTSUP}, Refusal{Errc::device_failed, EIO},
                      Refusal{Errc::already_in_use, EBUSY}, Refusal{Errc{1000}, EIO}));

}  // namespace
}  // namespace eclip::test
