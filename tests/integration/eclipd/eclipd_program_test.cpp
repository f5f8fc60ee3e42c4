// Scheduled workers of a running eclipd: their values, while plans, workers and the set of active
// ones change, and what an administrator sees of them.
#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* shufflenet = "shufflenet_v2_x1_0-b8";
constexpr const char* alexnet = "alexnet-b8";
constexpr const char* vgg = "vgg19-b8";
/// To simulate plans takes longer than all that is tested with this.
constexpr const char* quick_plans = "planner.simulate = false";

class EclipdProgram : public EclipdTest {
 protected:
  /// A worker that replays a profile by the plan and checks its value, until it is told to end.
  [[nodiscard]] static std::unique_ptr<ChildProcess> steady(const std::string& name,
                                                            const std::string& profile) {
    const std::vector<std::string> command{
        ECLIP_REPLAY_PROGRAM,
        "--json",
        "--mix",
        "--streams",
        "plan",
        "--profile",
        std::string(ECLIP_DATA_DIR "/profiles/") + profile + ".h100.json",
        "--name",
        name,
        "--timeout-s",
        "20",
        "--requests",
        "1000000"};
    return std::make_unique<ChildProcess>(command);
  }
  /// What it reports once it has ended, all values right.
  static json end_of(ChildProcess& worker) {
    EXPECT_EQ(worker.wait(), 0) << worker.errors();
    const json report = json::parse(worker.output(), nullptr, false);
    if (report.is_discarded()) {
      ADD_FAILURE() << worker.output();
      return {};
    }
    EXPECT_TRUE(report.at("mix").at("matches")) << report.at("name");
    EXPECT_GT(report.at("scheduler").at("scheduled"), 0);
    return report;
  }
  static json stop(ChildProcess& worker) {
    ::kill(worker.pid(), SIGTERM);
    return end_of(worker);
  }

  [[nodiscard]] std::string id_of(const std::string& name) const {
    for (const json& client : control({"client", "list"}))
      if (client.at("name") == name) return client.at("worker").dump();
    return {};
  }
  [[nodiscard]] json show(const std::string& name) const {
    const std::string id = id_of(name);
    return id.empty() ? json() : control({"client", "show", id});
  }
  [[nodiscard]] std::uint64_t figure(const std::string& name, const std::string& pointer) const {
    const json shown = show(name);
    const json::json_pointer place("/schedule" + pointer);
    return shown.contains(place) ? shown.at(place).get<std::uint64_t>() : 0;
  }
  /// Waits until it has had so many requests more.
  [[nodiscard]] bool goes_on(const std::string& name, std::uint64_t requests = 3) const {
    const std::uint64_t before = figure(name, "/requests");
    return eventually([&] { return figure(name, "/requests") >= before + requests; });
  }
  /// Waits for a plan with so many workers.
  [[nodiscard]] bool plans_for(std::size_t workers) const {
    return eventually([&] {
      const json history = control({"plan", "history"});
      return !history.empty() && history.back().at("workers") == workers;
    });
  }
  int say(const std::vector<std::string>& arguments) {
    std::vector<std::string> command{ECLIPCTL_PROGRAM, "--socket", socket()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    ChildProcess process(command);
    const int status = process.wait();
    said_ = process.output() + process.errors();
    return status;
  }

  std::string said_;
};

TEST_F(EclipdProgram, TwoToFourWorkersGiveRightValues) {
  start(quick_plans);
  const std::vector<const char*> profiles{shufflenet, alexnet, vgg, alexnet};
  std::vector<std::unique_ptr<ChildProcess>> workers;
  for (std::size_t i = 0; i < 2; ++i)
    workers.push_back(steady("w" + std::to_string(i), profiles[i]));
  ASSERT_TRUE(plans_for(2));
  ASSERT_TRUE(goes_on("w0") && goes_on("w1"));
  for (std::size_t i = 2; i < 4; ++i)
    workers.push_back(steady("w" + std::to_string(i), profiles[i]));
  ASSERT_TRUE(plans_for(4));
  for (std::size_t i = 2; i < 4; ++i) {
    EXPECT_TRUE(goes_on("w" + std::to_string(i)));
    stop(*workers[i]);
  }
  // What goes by the plan goes by the plan: no reason but that there was none yet.
  for (const char* name : {"w0", "w1"}) {
    const json bypassed = show(name).at("schedule").at("kernels_bypassed");
    for (const auto& [reason, count] : bypassed.items())
      EXPECT_TRUE(count == 0 || reason == "no_plan") << name << ": " << count << " " << reason;
  }
  for (std::size_t i = 0; i < 2; ++i) stop(*workers[i]);
  EXPECT_TRUE(all_streams_become_free());
}

TEST_F(EclipdProgram, OnceThereIsAPlanNoKernelBypassesIt) {
  constexpr std::uint64_t requests = 20;
  start();
  const auto workgroups = workgroups_of(alexnet);
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.profile = alexnet;
  std::vector<Connection> connections;
  for (int w = 0; w < 3; ++w) connections.emplace_back(&options);
  for (const Connection& each : connections)
    ASSERT_TRUE(eventually([&] { return each.plan(7, 0).has_value(); }));
  const auto work = [&](Connection& connection) {
    MixKernel kernel(connection, 20);
    WorkerScheduler scheduler = connection.scheduler();
    WorkerProgram program = scheduler.create_program();
    std::uint64_t last = 0;
    for (std::uint64_t request = 0; request < requests; ++request) {
      program.begin_request();
      for (std::uint32_t k = 0; k < workgroups.size(); ++k) {
        eclip_dispatch dispatch = kernel.next(k, 0, 0);
        dispatch.grid_size[0] = workgroups[k];
        program.dispatch(dispatch);
      }
      last = program.end_request();
      EXPECT_TRUE(request % 4 != 0 || program.wait(last, std::chrono::seconds(20)));
    }
    EXPECT_TRUE(program.wait(last, std::chrono::seconds(20)));
    EXPECT_EQ(kernel.value(), kernel.expected());
    EXPECT_EQ(scheduler.describe().requests, requests);
    EXPECT_EQ(scheduler.describe().scheduled, requests * workgroups.size());
    EXPECT_EQ(scheduler.describe().bypassed, 0U);
  };
  std::vector<std::thread> threads;
  for (Connection& each : connections) threads.emplace_back([&] { work(each); });
  for (auto& thread : threads) thread.join();
}

TEST_F(EclipdProgram, PlansChangeWhileRequestsAreInFlight) {
  constexpr int rounds = 2;
  start(quick_plans);
  const auto first = steady("first", shufflenet);
  const auto second = steady("second", alexnet);
  ASSERT_TRUE(plans_for(2));
  ASSERT_TRUE(goes_on("first") && goes_on("second"));
  const std::string file = (directory_.path() / "plan.json").string();
  for (int round = 0; round < rounds; ++round) {
    json plan = control({"plan", "show"});
    // All on one stream of the pool, another one each round.
    for (json& row : plan["rows"])
      for (json& streams : row["stream_of_group"])
        for (json& stream : streams) stream = round % 2 == 0 ? 1 : 3;
    std::ofstream(file) << plan;
    EXPECT_EQ(say({"plan", "apply", file}), 0) << said_;
    EXPECT_TRUE(goes_on("second", 1));
    EXPECT_EQ(say({"plan", "auto"}), 0) << said_;
    EXPECT_EQ(say({"plan", "replan"}), 0) << said_;
    EXPECT_EQ(say({"plan", "rollback"}), 0) << said_;
    EXPECT_TRUE(goes_on("first", 1));
    EXPECT_EQ(say({"plan", "auto"}), 0) << said_;
  }
  for (const char* name : {"first", "second"})
    EXPECT_GE(figure(name, "/switches/new_plan"), 2U) << name;
  stop(*first);
  stop(*second);
}

TEST_F(EclipdProgram, AKilledWorkerLeavesNothingAndTheOthersEndRight) {
  start(quick_plans);
  // An observer: it has a part in the plan, and no requests.
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.worker_name = "observer";
  options.profile = vgg;
  Connection observer(&options);
  WorkerScheduler scheduler = observer.scheduler();
  const auto others_are = [&](std::uint32_t count) {
    return eventually([&] { return scheduler.describe().active_others == count; });
  };
  const auto victim = steady("victim", shufflenet);
  const auto second = steady("second", alexnet);
  const auto third = steady("third", alexnet);
  for (const char* name : {"victim", "second", "third"}) ASSERT_TRUE(goes_on(name));
  EXPECT_TRUE(others_are(3));
  ::kill(victim->pid(), SIGKILL);
  victim->wait();
  EXPECT_TRUE(eventually([&] { return id_of("victim").empty(); }));
  EXPECT_TRUE(others_are(2)) << "its bit in the active set";
  for (const json& lease : control({"lease", "list"})) EXPECT_NE(lease.at("pid"), victim->pid());
  EXPECT_TRUE(goes_on("second") && goes_on("third"));
  ::kill(third->pid(), SIGKILL);
  third->wait();
  EXPECT_TRUE(others_are(1));
  EXPECT_TRUE(goes_on("second"));
  stop(*second);
  EXPECT_TRUE(others_are(0));
}

TEST_F(EclipdProgram, AWorkerAloneHasTheGpuAndGoesToItsLeafWhenAnotherHasRequests) {
  constexpr int rounds = 2;
  start(
      "planner.time_limit_ms = 60000");  // the whole plan, which has leaves, however slow eclipd is
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.worker_name = "other";
  options.profile = vgg;
  Connection other(&options);
  MixKernel kernel(other, 10);
  const auto worker = steady("worker", shufflenet);
  ASSERT_TRUE(plans_for(2));
  ASSERT_TRUE(eventually([&] { return other.plan(3, 0).has_value(); }));
  // A change of plans would be another reason to switch.
  const auto is_judged = [&] {
    return control({"plan", "show"}).at("rows").back().at("simulated_value") > 0;
  };
  ASSERT_TRUE(eventually(is_judged, std::chrono::seconds(60)));
  WorkerScheduler scheduler = other.scheduler();
  WorkerProgram program = scheduler.create_program();
  program.begin_request();
  program.dispatch(kernel.next(1, 0, 0));
  ASSERT_TRUE(program.wait(program.end_request(), std::chrono::seconds(20)));
  ASSERT_TRUE(goes_on("worker"));
  const std::string by_set = "/switches/active_set";
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t before = figure("worker", by_set);
    scheduler.set_waiting(1);
    EXPECT_TRUE(eventually([&] { return figure("worker", by_set) > before; })) << "to its leaf";
    EXPECT_TRUE(show("other").at("schedule").at("active"));
    const std::uint64_t at_leaf = figure("worker", by_set);
    scheduler.set_waiting(0);
    EXPECT_TRUE(eventually([&] { return figure("worker", by_set) > at_leaf; })) << "and back";
  }
  EXPECT_FALSE(show("other").at("schedule").at("active"));
  stop(*worker);
}

TEST_F(EclipdProgram, AnAdministratorSeesWhatAScheduledWorkerDoes) {
  start();
  const auto worker = steady("worker", alexnet);
  ASSERT_TRUE(plans_for(1));
  ASSERT_TRUE(goes_on("worker", 20));
  const json shown = show("worker");
  EXPECT_EQ(shown.at("pid"), worker->pid());
  EXPECT_EQ(shown.at("plan").at("seat"), 0);
  EXPECT_EQ(shown.at("plan").at("kernels"), 24);
  const json& schedule = shown.at("schedule");
  EXPECT_EQ(schedule.at("latency_class"), "throughput");
  EXPECT_GT(schedule.at("kernels_scheduled"), 24);
  EXPECT_GT(schedule.at("packets"), 24);
  EXPECT_EQ(schedule.at("kernels_bypassed").at("outside_a_request"), 0);
  EXPECT_EQ(schedule.at("kernels_bypassed").at("unknown_request"), 0);
  EXPECT_EQ(say({"client", "show", id_of("worker")}), 0);
  EXPECT_THAT(said_, HasSubstr("scheduled        yes, class throughput"));
  EXPECT_THAT(said_, HasSubstr("groups of 24 kernels"));
  EXPECT_THAT(said_, HasSubstr(" by the plan: "));
  const json streams = control({"stream", "list"});
  for (const json& stream : streams) {
    EXPECT_EQ(stream.at("scheduled"), 1) << stream;
    EXPECT_TRUE(stream.at("lease").is_null()) << "it takes no stream from anybody";
  }
  // Its leases count as one, and others lease beside it.
  Connection leasing;
  Lease lease = leasing.lease_stream(3);
  stop(*worker);
}

}  // namespace
}  // namespace eclip::test
