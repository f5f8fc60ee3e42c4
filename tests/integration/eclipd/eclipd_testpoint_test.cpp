// Workers and eclipd, killed exactly at each ECLIP_TESTPOINT (ipc/testpoint.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

bool is_stopped(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  return text.find(") T ") != std::string::npos;
}

/// It has ended, whether or not somebody has waited for it.
bool is_over(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  return text.empty() || text.find(") Z ") != std::string::npos;
}

/// Programs started while it lives have the point armed.
class Armed {
 public:
  explicit Armed(const std::string& point) { ::setenv("ECLIP_TESTPOINT", point.c_str(), 1); }
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;
  ~Armed() { ::unsetenv("ECLIP_TESTPOINT"); }
};

struct Point {
  const char* name;
  int at = 1;                  ///< the how-many-eth time it is reached
  const char* label = name;    ///< of the test
  const char* kind = "visit";  ///< of the worker
};
std::string label_of(const ::testing::TestParamInfo<Point>& point) {
  return point.param.label;
}

class EclipdTestpoint : public EclipdTest, public ::testing::WithParamInterface<Point> {
 protected:
  static std::unique_ptr<ChildProcess> worker(const std::string& kind) {
    return std::make_unique<ChildProcess>(std::vector<std::string>{TEST_WORKER_PROGRAM, kind});
  }
  static std::uint64_t most_packets(const nlohmann::json& clients) {
    std::uint64_t most = 0;
    for (const auto& client : clients)
      most = std::max(most, client.at("packets").get<std::uint64_t>());
    return most;
  }
  /// Of the survivor, whatever else is there.
  [[nodiscard]] bool packets_go_on() const {
    const auto before = most_packets(control({"client", "list"}));
    return eventually([&] { return most_packets(control({"client", "list"})) > before + 100; });
  }
  static std::unique_ptr<ChildProcess> running_survivor() {
    auto survivor = worker("stay");
    EXPECT_EQ(survivor->read_line(), "running");
    return survivor;
  }
  struct Record {
    std::uint64_t done = 0;
    std::uint64_t not_done = 0;
    std::uint64_t reattachments = 0;
  };
  /// Ends the survivor, whose results must be right.
  static Record record_of(ChildProcess& survivor) {
    ::kill(survivor.pid(), SIGTERM);
    EXPECT_EQ(survivor.wait(), 0) << survivor.errors();
    std::istringstream text(survivor.read_line());
    Record record;
    text >> record.done >> record.not_done >> record.reattachments;
    return record;
  }
  [[nodiscard]] std::uint64_t packets_of_the_only_client() const {
    const auto clients = control({"client", "list"});
    return clients.size() == 1 ? clients.at(0).at("packets").get<std::uint64_t>() : 0;
  }
  void expect_another_serves_than(pid_t first) const {
    EXPECT_TRUE(eventually([&] {
      const auto now = daemon_processes();
      return now.size() == 2 && now.back() != first;
    })) << "the point was not reached, or no other process serves";
  }
  /// The survivor, alone now, has lost one request with eclipd and goes on.
  void expect_survival(ChildProcess& survivor) const {
    EXPECT_TRUE(eventually([&] { return packets_of_the_only_client() > 100; }));
    const Record record = record_of(survivor);
    EXPECT_EQ(record.not_done, 1U);
    EXPECT_EQ(record.reattachments, 1U);
    EXPECT_TRUE(all_streams_become_free());
  }
  [[nodiscard]] std::string point(const char* what) const {
    return std::string(GetParam().name) + ":" + what + ":" + std::to_string(GetParam().at);
  }
};

class EclipdWorkerTestpoint : public EclipdTestpoint {};

TEST_P(EclipdWorkerTestpoint, AWorkerThatEndsHereLeavesNothingBehindAndDisturbsNobody) {
#if !defined(ECLIP_TESTPOINTS)
  GTEST_SKIP() << "built without ECLIP_TESTPOINTS";
#endif
  start();
  const auto survivor = running_survivor();
  const auto descriptors = daemon_descriptors();
  for (const char* end : {"kill", "stop", "segv"}) {
    SCOPED_TRACE(end);
    std::unique_ptr<ChildProcess> victim;
    {
      const Armed armed(point(end));
      victim = worker(GetParam().kind);
    }
    if (std::string_view(end) == "stop") {
      ASSERT_TRUE(eventually([&] { return is_stopped(victim->pid()); }));
      EXPECT_TRUE(packets_go_on()) << "it holds what it holds; the other works on";
      ::kill(victim->pid(), SIGKILL);
    }
    EXPECT_EQ(victim->wait(), 128 + (std::string_view(end) == "segv" ? SIGSEGV : SIGKILL));
    EXPECT_TRUE(eventually([&] { return control({"client", "list"}).size() == 1; }));
    EXPECT_TRUE(eventually([&] { return daemon_descriptors() == descriptors; }))
        << daemon_descriptors() << " descriptors in eclipd instead of " << descriptors;
    EXPECT_TRUE(eventually([&] {
      const auto now = stream_states();
      return std::count(now.begin(), now.end(), "free") + 1 ==
             static_cast<std::ptrdiff_t>(now.size());
    }));
  }
  const Record record = record_of(*survivor);
  EXPECT_GT(record.done, 0U);
  EXPECT_EQ(record.not_done, 0U);
  EXPECT_TRUE(all_streams_become_free());
  EXPECT_EQ(control({"client", "list"}).size(), 0U);
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 0);
}

// The requests of a visit, in order: hello, lease, memory, code, kernel, then at its end the
// memory back and the lease back; of `plan` the schedule for the lease.
INSTANTIATE_TEST_SUITE_P(
    Every, EclipdWorkerTestpoint,
    ::testing::Values(Point{"connected"}, Point{"request_sent", 1, "hello_sent"},
                      Point{"regions_mapped"}, Point{"request_sent", 2, "lease_asked"},
                      Point{"lease_granted"}, Point{"request_sent", 3, "memory_asked"},
                      Point{"memory_granted"}, Point{"request_sent", 4, "code_sent"},
                      Point{"request_sent", 5, "kernel_sent"}, Point{"signal_use_begun"},
                      Point{"slot_written"}, Point{"slot_written", 20, "last_slot_written"},
                      Point{"index_stored"}, Point{"index_stored", 20, "last_index_stored"},
                      Point{"counted_as_waiter"}, Point{"request_sent", 6, "memory_release_sent"},
                      Point{"request_sent", 7, "lease_release_sent"},
                      Point{"request_sent", 2, "schedule_asked", "plan"},
                      Point{"scheduled", 1, "scheduled", "plan"},
                      Point{"slot_written", 30, "slot_written_by_plan", "plan"},
                      Point{"index_stored", 30, "index_stored_by_plan", "plan"}),
    label_of);

/// The worker `queue` waits for a stream that the test holds and then gives back.
class EclipdQueueTestpoint : public EclipdTestpoint {
 protected:
  static constexpr std::uint32_t stream = 6;

  [[nodiscard]] bool is_queued() const {
    const auto leases = control({"lease", "list"});
    return std::any_of(leases.begin(), leases.end(),
                       [](const auto& lease) { return lease.at("state") == "queued"; });
  }
  static eclip_lease_request patient() {
    eclip_lease_request request{};
    request.stream = stream;
    request.wait_ms = 20'000;
    return request;
  }
};

TEST_P(EclipdQueueTestpoint, AWorkerThatEndsHereKeepsTheStreamFromNobody) {
#if !defined(ECLIP_TESTPOINTS)
  GTEST_SKIP() << "built without ECLIP_TESTPOINTS";
#endif
  start("leases.claim_ms = 300");
  const auto survivor = running_survivor();
  Connection next;
  const auto descriptors = daemon_descriptors();
  for (const char* end : {"kill", "stop", "segv"}) {
    SCOPED_TRACE(end);
    const bool stops = std::string_view(end) == "stop";
    std::optional<Lease> held(next.lease_stream(stream));
    std::unique_ptr<ChildProcess> victim;
    {
      const Armed armed(point(end));
      victim = worker("queue");
    }
    const auto has_ended = [&] { return is_stopped(victim->pid()) || is_over(victim->pid()); };
    ASSERT_TRUE(eventually([&] { return is_queued() || has_ended(); }));
    held.reset();
    ASSERT_TRUE(eventually(has_ended)) << "the point was not reached";
    if (stops) {
      EXPECT_TRUE(packets_go_on());
      // What it was offered and does not take goes to the next; what it has taken is its own.
      const bool took_it = std::string_view(GetParam().name) == "lease_renewed" ||
                           std::string_view(GetParam().name) == "lease_claimed" ||
                           std::string_view(GetParam().label) == "claim_sent";
      if (!took_it) {
        const Lease after = next.lease(patient());
      }
      ::kill(victim->pid(), SIGKILL);
    }
    EXPECT_EQ(victim->wait(), 128 + (std::string_view(end) == "segv" ? SIGSEGV : SIGKILL));
    { const Lease after = next.lease(patient()); }
    EXPECT_TRUE(eventually([&] { return control({"client", "list"}).size() == 2; }));
    EXPECT_TRUE(eventually([&] { return daemon_descriptors() == descriptors; }))
        << daemon_descriptors() << " descriptors in eclipd instead of " << descriptors;
  }
  EXPECT_EQ(record_of(*survivor).not_done, 0U);
  EXPECT_TRUE(all_streams_become_free());
  EXPECT_EQ(control({"status"}).at("leases_queued"), 0);
}

INSTANTIATE_TEST_SUITE_P(Every, EclipdQueueTestpoint,
                         ::testing::Values(Point{"lease_queued"}, Point{"lease_offered"},
                                           Point{"request_sent", 3, "claim_sent"},
                                           Point{"lease_claimed"}, Point{"lease_renewed"}),
                         label_of);

class EclipdDaemonQueueTestpoint : public EclipdQueueTestpoint {};

TEST_P(EclipdDaemonQueueTestpoint, ADaemonThatEndsHereIsToldToAllAndTheNextOneServes) {
#if !defined(ECLIP_TESTPOINTS)
  GTEST_SKIP() << "built without ECLIP_TESTPOINTS";
#endif
  {
    const Armed armed(point("kill"));
    start();
  }
  const pid_t first = daemon_processes().back();
  const auto survivor = running_survivor();
  std::optional<Connection> holder(std::in_place);
  std::optional<Lease> held(holder->lease_stream(stream));
  const auto visitor = worker("queue");
  ASSERT_TRUE(eventually([&] { return is_over(first) || is_queued(); }));
  if (std::string_view(GetParam().name) == "revocation_unpublished") {
    ChildProcess revoke({ECLIPCTL_PROGRAM, "lease", "revoke", std::to_string(held->describe().id)});
    revoke.wait();  // it may have its answer before eclipd ends
  } else {
    held.reset();
  }
  const int status = visitor->wait();
  EXPECT_EQ(status, 3) << visitor->errors();
  expect_another_serves_than(first);
  if (held) {
    EXPECT_THROW(while (true) holder->allocate(4096), ApiError) << "the holder is told as well";
  }
  held.reset();
  holder.reset();
  expect_survival(*survivor);
  EXPECT_EQ(worker("queue")->wait(), 0);
}

// The survivor and the holder have taken a lease each when the visitor comes.
INSTANTIATE_TEST_SUITE_P(Every, EclipdDaemonQueueTestpoint,
                         ::testing::Values(Point{"lease_granted_unsaid", 3, "lease_queued_unsaid"},
                                           Point{"offer_unpublished"},
                                           Point{"lease_claimed_unsaid"},
                                           Point{"revocation_unpublished"}),
                         label_of);

class EclipdDaemonTestpoint : public EclipdTestpoint {};

TEST_P(EclipdDaemonTestpoint, ADaemonThatEndsHereIsToldToItsWorkersAndTheNextOneServes) {
#if !defined(ECLIP_TESTPOINTS)
  GTEST_SKIP() << "built without ECLIP_TESTPOINTS";
#endif
  {
    const Armed armed(point("kill"));
    start();
  }
  const pid_t first = daemon_processes().back();
  const auto survivor = running_survivor();
  const auto visitor = worker(GetParam().kind);
  const int status = visitor->wait();
  EXPECT_TRUE(status == 0 || status == 3) << status << ": " << visitor->errors();
  expect_another_serves_than(first);
  expect_survival(*survivor);
  EXPECT_EQ(worker(GetParam().kind)->wait(), 0);
}

// The survivor has made five requests and taken one lease when the visitor comes; the points of
// the packets' way are reached by either.
INSTANTIATE_TEST_SUITE_P(
    Every, EclipdDaemonTestpoint,
    ::testing::Values(Point{"request_read", 6, "request_read"},
                      Point{"lease_granted_unsaid", 2, "lease_granted_unsaid"},
                      Point{"memory_granted_unsaid", 2, "memory_granted_unsaid"},
                      Point{"lease_released_unsaid"}, Point{"worker_left"},
                      Point{"scheduled_unsaid", 1, "scheduled_unsaid", "plan"},
                      Point{"lease_end_unpublished"}, Point{"packet_vetted", 500, "packet_vetted"},
                      Point{"signal_armed", 25, "signal_armed"},
                      Point{"packet_pushed", 500, "packet_pushed"},
                      Point{"before_doorbell", 100, "before_doorbell"},
                      Point{"after_doorbell", 100, "after_doorbell"},
                      Point{"completion_seen", 25, "completion_seen"}),
    label_of);

}  // namespace
}  // namespace eclip::test
