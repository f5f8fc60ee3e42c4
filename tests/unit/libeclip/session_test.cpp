// Sessions: requests with and without eclipd, and attaching again.
#include <eclip/session.hpp>
#include <filesystem>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using namespace std::chrono_literals;

/// What a host has on a connection: a lease and a signal.
struct Model {
  explicit Model(Connection& to)
      : connection(&to), lease(to.lease_any(15)), signal(to.create_signal()) {}
  /// One packet, acknowledged.
  void infer() {
    eclip_dispatch dispatch{};
    dispatch.flags = ECLIP_PACKET_SIGNAL;
    dispatch.signal = signal.id();
    dispatch.kernel = 1;
    for (int i = 0; i < 3; ++i) dispatch.grid_size[i] = dispatch.workgroup_size[i] = 1;
    Token token{};
    if (!lease.try_submit(dispatch, &token) || !connection->wait(token, deadline))
      throw ApiError(ETIMEDOUT, "the test's request");
  }
  Connection* connection;
  Lease lease;
  Signal signal;
};

class Sessions : public ::testing::Test {
 protected:
  Sessions() { restart(); }
  ~Sessions() override { std::filesystem::remove(path_); }
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  /// Another eclipd takes the place of the one before.
  void restart(bool runs_packets = true) {
    daemon.emplace(
        FakeDaemon::Behaviour{.answer = [this](const Message& request) { return answer(request); },
                              .truncate_memory = false,
                              .run_packets = runs_packets});
    std::filesystem::remove(path_);
    std::filesystem::create_symlink(daemon->path(), path_);
  }
  std::unique_ptr<Session<Model>> open() {
    return std::make_unique<Session<Model>>(
        SessionOptions{.connect = &options, .first_delay = 1ms, .longest_delay = 20ms},
        [](Connection& connection) { return std::make_unique<Model>(connection); });
  }
  std::optional<std::vector<Message>> answer(const Message& request) {
    if (request.header.type != MessageType::lease_acquire || refusals == 0) return std::nullopt;
    --refusals;
    return std::vector{make_error(request.header.sequence,
                                  Error{make_error_code(Errc::no_stream), "no stream is free"})};
  }
  static void infer(Model& model) { model.infer(); }

  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("eclip-session-" + std::to_string(::getpid()));
  const std::string path_text_ = path_.string();
  const eclip_connect_options options = options_for(path_text_);
  std::atomic<int> refusals = 0;
  std::optional<FakeDaemon> daemon;
};

TEST_F(Sessions, RunRequestsWhileEclipdLives) {
  const auto session = open();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(session->run(infer), Outcome::done);
  EXPECT_EQ(session->counts().done, 3U);
  EXPECT_EQ(session->counts().reattachments, 0U);
}

TEST_F(Sessions, ReportTheRequestThatEclipdEndedUnderAsNotDoneRunTheFallbackAndAttachAgain) {
  const auto session = open();
  for (int round = 1; round <= 3; ++round) {
    ASSERT_EQ(session->run(infer), Outcome::done);
    daemon->die();
    EXPECT_EQ(session->run([&](Model& model) {
      daemon->die();
      model.infer();
    }),
              Outcome::not_done);
    bool fell_back = false;
    EXPECT_EQ(session->run(infer, [&] { fell_back = true; }), Outcome::without_eclipd);
    EXPECT_TRUE(fell_back);
    EXPECT_EQ(session->connection(), nullptr);
    restart();
    ASSERT_TRUE(session->wait_until_attached(deadline));
    EXPECT_EQ(session->run(infer), Outcome::done);
    EXPECT_EQ(session->counts().reattachments, static_cast<std::uint64_t>(round));
    EXPECT_EQ(session->counts().not_done, static_cast<std::uint64_t>(round));
  }
}

TEST_F(Sessions, TryTheSetupAgainUntilItSucceeds) {
  const auto session = open();
  daemon->die();
  EXPECT_EQ(session->run(infer), Outcome::not_done);
  refusals = 3;
  restart();
  ASSERT_TRUE(session->wait_until_attached(deadline));
  EXPECT_EQ(refusals, 0);
  EXPECT_THAT(session->last_failure(), ::testing::HasSubstr("no stream is free"));
}

TEST_F(Sessions, StartWithoutEclipdButNotWithASetupThatFails) {
  refusals = 1;
  EXPECT_THROW(open(), ApiError);
  daemon->die();
  const auto session = open();
  EXPECT_EQ(session->run(infer), Outcome::without_eclipd);
  restart();
  EXPECT_TRUE(session->wait_until_attached(deadline));
}

TEST_F(Sessions, GiveTheStateUpWithItsLease) {
  const auto session = open();
  daemon->lease_slot(0).state = static_cast<std::uint32_t>(LeaseState::revoked);
  EXPECT_EQ(session->run(infer), Outcome::not_done);
  ASSERT_TRUE(session->wait_until_attached(deadline));
  EXPECT_EQ(session->run(infer), Outcome::done);
}

TEST_F(Sessions, PassOtherErrorsOnAndStay) {
  const auto session = open();
  EXPECT_THROW(session->run([](Model&) { throw ApiError(EINVAL, "a bug of the program"); }),
               ApiError);
  EXPECT_TRUE(session->is_attached());
}

TEST_F(Sessions, AttemptsAreBoundedInTime) {
  const auto session = open();
  daemon->die();
  EXPECT_EQ(session->run(infer), Outcome::not_done);
  refusals = 1'000'000;
  restart();
  // One, two, four ... milliseconds up to twenty: in 200 ms at most 16 attempts.
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(session->wait_until_attached(200ms));
  const auto periods = (std::chrono::steady_clock::now() - start) / 20ms;
  EXPECT_LE(daemon->requests(MessageType::lease_acquire).size(),
            static_cast<std::size_t>(6 + periods));
}

}  // namespace
}  // namespace eclip::test
