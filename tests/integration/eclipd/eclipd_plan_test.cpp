// Plans of a running eclipd: who gets one, how it is shown, kept and changed.
#include <gmock/gmock.h>
#include <signal.h>

#include <fstream>

#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class EclipdPlan : public EclipdTest {
 protected:
  /// A worker of that name and profile.
  static Connection worker(const char* name, const char* profile, double requests_per_s = 0) {
    eclip_connect_options options{};
    options.struct_size = sizeof options;
    options.worker_name = name;
    options.profile = profile;
    options.requests_per_s = requests_per_s;
    return Connection(&options);
  }
  /// Waits for a plan with so many workers.
  [[nodiscard]] bool plans_for(std::size_t workers) const {
    return eventually([&] {
      const json history = control({"plan", "history"});
      return !history.empty() && history.back().at("workers") == workers;
    });
  }
  struct Said {
    int status;
    std::string output;
    std::string errors;
  };
  [[nodiscard]] Said say(const std::vector<std::string>& arguments) const {
    std::vector<std::string> command{ECLIPCTL_PROGRAM, "--socket", socket(), "plan"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    ChildProcess process(command);
    const int status = process.wait();
    return {status, process.output(), process.errors()};
  }
};

TEST_F(EclipdPlan, WorkersReadTheirPartsAndAnAdministratorSeesWhy) {
  start();
  EXPECT_THAT(say({"show"}).errors, HasSubstr("there is no plan yet: no worker has connected"));
  const Connection vision = worker("vision", "densenet201-b8");
  EXPECT_TRUE(plans_for(1));
  const auto alone = vision.plan(1, 0);
  ASSERT_TRUE(alone);
  EXPECT_EQ(alone->stream, 0U) << "the whole GPU";
  const Connection text = worker("text", "vgg19-b8", 20);
  EXPECT_TRUE(plans_for(2));
  // The judged plan may follow the first between two look-ups.
  std::optional<eclip_plan_entry> first;
  std::optional<eclip_plan_entry> second;
  ASSERT_TRUE(eventually([&] {
    first = vision.plan(3, 0);
    second = text.plan(3, 0);
    return first && second && first->epoch == second->epoch;
  }));
  EXPECT_EQ(first->worker, 0U);
  EXPECT_EQ(second->worker, 1U);
  EXPECT_NE(first->stream, second->stream);
  EXPECT_EQ(first->first_kernel, 0U);
  EXPECT_FALSE(vision.plan(2, 0)) << "a set without this worker";
  // Groups follow each other without a gap.
  for (std::uint32_t kernel = 0; kernel < 758;) {
    const auto entry = vision.plan(3, kernel);
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->first_kernel, kernel);
    ASSERT_GT(entry->end_kernel, kernel);
    kernel = entry->end_kernel;
  }

  const json clients = control({"client", "list"});
  ASSERT_EQ(clients.size(), 2U);
  const std::string id = clients[1].at("worker").dump();
  const json client = control({"client", "show", id});
  EXPECT_EQ(client.at("name"), "text");
  EXPECT_EQ(client.at("plan").at("seat"), 1);
  EXPECT_GT(client.at("plan").at("kernels"), 0);
  EXPECT_TRUE(client.at("schedule").is_null()) << "it leases streams itself";

  const Said shown = say({"show"});
  EXPECT_THAT(shown.output, HasSubstr("in force"));
  EXPECT_THAT(shown.output, HasSubstr("0+1"));
  const Said why = say({"explain"});
  EXPECT_THAT(why.output, HasSubstr("NO MASKS MS"));
  EXPECT_THAT(why.output, HasSubstr("% worse"));
  EXPECT_THAT(say({"diff", "1"}).output, HasSubstr("worker 1: - -> text (vgg19-b8)"));
  const json plan = control({"plan", "show"});
  EXPECT_EQ(plan.at("schema"), "eclip.plan/1");
  EXPECT_EQ(plan.at("workers")[1].at("requests_per_s"), 20);
}

TEST_F(EclipdPlan, AReportedLoadLeadsToAnotherPlan) {
  start();
  const Connection text = worker("text", "vgg19-b8", 5);
  EXPECT_TRUE(plans_for(1));
  text.report_load(12, 0);
  EXPECT_TRUE(eventually([&] {
    return control({"plan", "show"}).at("reason") == "worker 1 'text' has 12.0 requests/s, not 5.0";
  }));
}

TEST_F(EclipdPlan, APinnedPlanSurvivesItsProcessAndTheDaemon) {
  start();
  {
    const Connection vision = worker("vision", "densenet201-b8");
    EXPECT_TRUE(plans_for(1));
    json plan = control({"plan", "show"});
    for (auto& stream : plan["rows"][0]["stream_of_group"][0]) stream = 3;
    const std::string file = (directory_.path() / "plan.json").string();
    std::ofstream(file) << plan;
    const Said applied = say({"apply", file});
    EXPECT_EQ(applied.status, 0) << applied.errors;
    EXPECT_THAT(applied.output, HasSubstr("in force and pinned"));
    EXPECT_EQ(vision.plan(1, 0)->stream, 3U);
  }
  const pid_t serving = serving_pid();
  ::kill(serving, SIGKILL);
  ASSERT_TRUE(eventually([&] { return say({"history"}).status == 0 && serving_pid() != serving; }));
  {
    const Connection vision = worker("vision", "densenet201-b8");
    ASSERT_TRUE(vision.plan(1, 0));
    EXPECT_EQ(vision.plan(1, 0)->stream, 3U);
  }
  EXPECT_EQ(stop_daemon(), 0);
  start();
  const Connection vision = worker("vision", "densenet201-b8");
  ASSERT_TRUE(vision.plan(1, 0));
  EXPECT_EQ(vision.plan(1, 0)->stream, 3U);
  EXPECT_THAT(say({"replan"}).errors, HasSubstr("is pinned"));
  EXPECT_EQ(say({"auto"}).status, 0);
  EXPECT_TRUE(eventually([&] { return vision.plan(1, 0)->stream == 0; }));
  EXPECT_EQ(say({"rollback"}).status, 0);
  EXPECT_EQ(vision.plan(1, 0)->stream, 3U);
}

TEST_F(EclipdPlan, BadPlansAreRefusedWithThePlace) {
  start();
  const Connection vision = worker("vision", "densenet201-b8");
  EXPECT_TRUE(plans_for(1));
  const std::string file = (directory_.path() / "plan.json").string();
  json plan = control({"plan", "show"});
  plan["rows"][0]["stream_of_group"][0][0] = 99;
  std::ofstream(file) << plan;
  const Said refused = say({"apply", file});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.errors,
              HasSubstr("/rows/0/stream_of_group/0/0 must be a whole number below"));
  std::ofstream(file) << "";
  EXPECT_THAT(say({"apply", file}).errors, HasSubstr("a plan of 0 bytes"));
  EXPECT_THAT(say({"show", "99"}).errors, HasSubstr("plan 99 is not in the history"));
  EXPECT_EQ(control({"plan", "history"}).size(), 1U);
}

TEST_F(EclipdPlan, WithoutAPlaceForItsPlansOrWithoutPlansItServes) {
  const std::string nowhere = "planner.state_dir = \"/proc/none\"";
  std::ofstream(directory_.path() / "no_state.toml") << "daemon.socket = \"" << socket() << "\"\n"
                                                     << nowhere << "\n";
  ::setenv("ECLIP_SOCKET", socket().c_str(), 1);
  daemon_ = std::make_unique<ChildProcess>(
      std::vector<std::string>{ECLIPD_PROGRAM, "--config",
                               (directory_.path() / "no_state.toml").string(), "--ready-fd", "1"});
  ASSERT_EQ(daemon_->read_line(), "ready");
  EXPECT_TRUE(daemon().says("plans will not outlive eclipd"));
  {
    const Connection vision = worker("vision", "densenet201-b8");
    EXPECT_TRUE(plans_for(1));
  }
  EXPECT_EQ(stop_daemon(), 0);
  start("planner.enabled = false");
  Connection vision = worker("vision", "densenet201-b8");
  EXPECT_FALSE(vision.plan(1, 0));
  EXPECT_THAT(say({"show"}).errors, HasSubstr("planner.enabled is false"));
  const Lease lease = vision.lease_stream(0);
}

TEST_F(EclipdPlan, AWorkerThatNamesNoProfilesNameIsRefused) {
  start();
  EXPECT_THROW(worker("vision", "../../etc/passwd"), ApiError);
  EXPECT_THROW(worker("vision", "vgg19-b8", -1), ApiError);
}

}  // namespace
}  // namespace eclip::test
