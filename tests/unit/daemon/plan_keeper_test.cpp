#include "daemon/plan_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <memory>

#include "daemon/model/data_dir.h"
#include "daemon/profile_library.h"
#include "daemon/topology.h"
#include "ipc/launch_shapes.h"
#include "ipc/unique_fd.h"
#include "tests/fake/temporary_directory.h"

namespace eclip::daemon {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::chrono::seconds plan_patience{60};

/// A worker's shared memory.
struct Memory {
  std::unique_ptr<WorkerState> state = std::make_unique<WorkerState>();
  std::unique_ptr<WorkerRequest> request = std::make_unique<WorkerRequest>();
};

class PlanKeeperTest : public ::testing::Test {
 protected:
  PlanKeeperTest() {
    config_.planner.simulate = false;
    begin();
  }
  static GpuTopology topology() {
    GpuTopology gpu;
    gpu.cu_count = 60;
    gpu.shader_engines = 4;
    return gpu;
  }
  static model::GpuDescription gpu() {
    return model::load_gpu_description(model::default_data_dir() / "gpus" / "mi50.toml").value();
  }
  static std::vector<CuMask> tree() { return planner::tree_masks(60, 4); }
  void begin(const std::vector<CuMask>& pool = tree()) {
    keeper_.reset();
    keeper_.emplace(config_, gpu(), pool, plan_epoch_,
                    PlanHistory::open(directory_.path(), "plans").value(), mailbox_, &active_);
  }
  /// Runs what the planning thread posts until the condition holds.
  template <class Condition>
  bool eventually(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + plan_patience;
    while (!condition()) {
      pollfd entry{.fd = wake_.get(), .events = POLLIN, .revents = 0};
      const bool is_posted = ::poll(&entry, 1, 100) == 1;
      if (!is_posted && std::chrono::steady_clock::now() > deadline) return false;
      eventfd_t count = 0;
      if (is_posted) ::eventfd_read(wake_.get(), &count);
      mailbox_.run_all();
    }
    return true;
  }
  bool plan_comes_after(std::uint64_t epoch) {
    return eventually([&] { return plan_epoch_.load() > epoch; });
  }
  const Memory& join(std::uint64_t id, const std::string& name,
                     const std::string& profile = "shufflenet_v2_x1_0-b8",
                     double requests_per_s = 0) {
    const Memory& memory = memory_[id];
    keeper_->add({.id = WorkerId{id},
                  .name = name,
                  .profile = profile,
                  .requests_per_s = requests_per_s,
                  .tables = &memory.state->plans,
                  .request = memory.request.get()});
    return memory;
  }
  [[nodiscard]] PlanReader reader(std::uint64_t id) {
    return {memory_[id].state->plans, plan_epoch_};
  }
  bool plan_comes_for(std::size_t workers) {
    return eventually([&] {
      const auto document = keeper_->document(0);
      return document && document->at("workers").size() == workers;
    });
  }
  bool reason_comes(const std::string& text) {
    return eventually([&] { return current("/reason").find(text) != std::string::npos; });
  }
  /// What a worker's table says is what the plan in force says, whose workers have these seats.
  void expect_table(std::uint64_t id, std::size_t part, const std::vector<std::uint32_t>& seats) {
    const json document = keeper_->document(0).value();
    const PlanTable& table = memory_[id].state->plans[plan_epoch_ % 2];
    ASSERT_EQ(table.epoch, plan_epoch_);
    EXPECT_EQ(table.seat, seats[part]);
    for (std::uint32_t parts = 1; parts < 1U << seats.size(); ++parts) {
      std::uint32_t set = 0;
      for (std::size_t p = 0; p < seats.size(); ++p)
        if (parts >> p & 1U) set |= 1U << seats[p];
      const json& row = document["rows"][parts - 1];
      const json& streams = row["stream_of_group"][part];
      for (std::uint32_t g = 0; g < streams.size(); ++g) {
        const bool is_unmasked = streams[g] == document["unmasked"];
        EXPECT_EQ(table.stream[set][g], is_unmasked ? PlanTable::no_mask : streams[g].get<int>());
      }
      EXPECT_FLOAT_EQ(table.slowdown[set], row["slowdown"][part].get<float>());
      EXPECT_EQ(reader(id).stream(plan_epoch_, set, 0).has_value(), (parts >> part & 1U) != 0);
    }
    std::uint32_t all = 0;
    for (const std::uint32_t seat : seats) all |= 1U << seat;
    EXPECT_EQ(table.workers, all);
    for (std::uint32_t set = 1; set < table.stream.size(); ++set)
      if ((set & ~all) != 0) {
        EXPECT_FALSE(reader(id).stream(plan_epoch_, set, 0)) << set;
      }
  }
  std::string current(const char* pointer) {
    return keeper_->document(0).value().at(json::json_pointer(pointer)).dump();
  }

  test::TemporaryDirectory directory_;
  Config config_;
  std::atomic<std::uint64_t> plan_epoch_ = 0;
  ActiveSet active_{};
  UniqueFd wake_{::eventfd(0, EFD_CLOEXEC)};
  Mailbox mailbox_{[this] { ::eventfd_write(wake_.get(), 1); }};
  std::map<std::uint64_t, Memory> memory_;
  std::optional<PlanKeeper> keeper_;
};

TEST_F(PlanKeeperTest, AWorkerThatJoinsFindsItsPartAndOneThatLeavesHasNone) {
  EXPECT_EQ(keeper_->document(0).error().code, Errc::not_found);
  join(1, "a");
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(reader(1).groups(1)->seat, 0U);
  EXPECT_EQ(reader(1).stream(1, 1, 0), 0) << "alone: the whole GPU";
  EXPECT_EQ(current("/reason"), "\"worker 1 'a' joined\"");

  join(2, "b", "vgg19-b8");
  ASSERT_TRUE(plan_comes_after(1));
  const std::uint64_t both = plan_epoch_.load();
  EXPECT_EQ(reader(1).groups(both)->seat, 0U);
  EXPECT_EQ(reader(2).groups(both)->seat, 1U);
  const auto of_first = reader(1).stream(both, 3, 0);
  const auto of_second = reader(2).stream(both, 3, 0);
  ASSERT_TRUE(of_first && of_second);
  EXPECT_NE(*of_first, *of_second);
  EXPECT_FALSE(reader(1).stream(both, 2, 0)) << "a set without this worker";

  keeper_->remove(WorkerId{1});
  ASSERT_TRUE(plan_comes_after(both));
  EXPECT_FALSE(reader(1).groups(plan_epoch_.load()));
  EXPECT_EQ(reader(2).groups(plan_epoch_.load())->seat, 1U) << "its seat stays";
  EXPECT_EQ(keeper_->records().size(), 3U);
}

TEST_F(PlanKeeperTest, AWorkerWithoutAProfileOrWithOneThatIsNotThereIsPlannedToo) {
  join(1, "a", "");
  join(2, "b", "no-such-profile");
  join(3, "c");
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 3;
  }));
  EXPECT_EQ(current("/workers/0/profile"), "\"\"");
  EXPECT_EQ(current("/workers/1/profile"), "\"no-such-profile\"");
  EXPECT_EQ(current("/workers/1/unknown"), "true");
  EXPECT_EQ(current("/workers/2/unknown"), "false");
  EXPECT_EQ(current("/workers/2/profile"), "\"shufflenet_v2_x1_0-b8\"");
  for (std::uint64_t id = 1; id <= 3; ++id) EXPECT_TRUE(reader(id).groups(plan_epoch_.load()));
}

TEST_F(PlanKeeperTest, TheEighthWorkerHasNoPart) {
  for (std::uint64_t id = 1; id <= 8; ++id) join(id, "w", "");
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 7;
  }));
  EXPECT_TRUE(reader(7).groups(plan_epoch_.load()));
  EXPECT_FALSE(reader(8).groups(plan_epoch_.load()));
}

TEST_F(PlanKeeperTest, AChangedRateOrTimeLeadsToAnotherPlanAndASmallChangeDoesNot) {
  const Memory& memory = join(1, "a", "vgg19-b8", 10);
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(current("/workers/0/requests_per_s"), "10.0");
  // The first is asked for here and not made; had the second been made for it, it would say 12.
  memory.request->requests_per_1000_s = 12'000;
  keeper_->look_at_loads();
  memory.request->requests_per_1000_s = 13'000;
  keeper_->look_at_loads();
  const auto reason_has = [&](const char* text) {
    return eventually([&] { return current("/reason").find(text) != std::string::npos; });
  };
  ASSERT_TRUE(reason_has("has 13.0 requests/s, not 10.0"));
  EXPECT_EQ(current("/workers/0/requests_per_s"), "13.0");
  const double alone_us = std::stod(current("/workers/0/alone_us"));
  memory.request->time_permille = 2000;
  keeper_->look_at_loads();
  ASSERT_TRUE(reason_has("takes 2.00 of the time of its profile"));
  EXPECT_NEAR(std::stod(current("/workers/0/alone_us")) / alone_us, 2, 0.05);
  // What a worker writes may be anything.
  memory.request->time_permille = UINT32_MAX;
  memory.request->requests_per_1000_s = UINT32_MAX;
  keeper_->look_at_loads();
  ASSERT_TRUE(reason_has("takes 10.00 of the time of its profile"));
}

TEST_F(PlanKeeperTest, TheConfigurationSaysWhatAWorkerDoesNot) {
  config_.planner.workers = {{.name = "a",
                              .profile = "vgg19-b8",
                              .requests_per_s = 5,
                              .latency_bound_ms = 100,
                              .weight = 3}};
  join(1, "a", "", 0);
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(current("/workers/0/profile"), "\"vgg19-b8\"");
  EXPECT_EQ(current("/workers/0/requests_per_s"), "5.0");
  EXPECT_EQ(current("/workers/0/latency_bound_us"), "100000.0");
  EXPECT_EQ(current("/workers/0/weight"), "3.0");
}

TEST_F(PlanKeeperTest, AnAppliedPlanIsPinnedAndComesBackAfterARestart) {
  join(1, "a");
  join(2, "b", "vgg19-b8");
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 2;
  }));
  json plan = keeper_->document(0).value();
  for (auto& stream : plan["rows"][2]["stream_of_group"][0]) stream = 6;
  const auto applied = keeper_->apply(plan.dump(), "uid 0");
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(plan_epoch_.load(), *applied);
  EXPECT_EQ(reader(1).stream(*applied, 3, 0), 6);
  EXPECT_EQ(current("/pinned"), "true");
  EXPECT_EQ(current("/reason"), "\"applied by uid 0\"");

  // Nobody plans any more: a worker that leaves changes nothing, and one like it gets its part.
  keeper_->remove(WorkerId{1});
  keeper_->look_at_loads();
  join(5, "a");
  join(6, "stranger");
  EXPECT_EQ(plan_epoch_.load(), *applied);
  EXPECT_EQ(reader(5).stream(*applied, 3, 0), 6);
  EXPECT_FALSE(reader(6).groups(*applied));
  EXPECT_THAT(keeper_->choose({.action = PlanChoice::replan}, "uid 0").error().message(),
              HasSubstr("is pinned"));

  plan_epoch_.store(0);
  memory_.clear();
  begin();
  EXPECT_EQ(plan_epoch_.load(), *applied);
  join(9, "b", "vgg19-b8");
  join(10, "a");
  EXPECT_EQ(reader(9).groups(*applied)->seat, 1U);
  EXPECT_EQ(reader(10).stream(*applied, 3, 0), 6);

  // Automatic again.
  EXPECT_TRUE(keeper_->choose({.action = PlanChoice::unpin}, "uid 0"));
  ASSERT_TRUE(plan_comes_after(*applied));
  EXPECT_EQ(current("/pinned"), "false");
}

TEST_F(PlanKeeperTest, APinnedPlanForAnotherPoolIsNotUsed) {
  join(1, "a");
  ASSERT_TRUE(plan_comes_after(0));
  ASSERT_TRUE(keeper_->apply(keeper_->document(0)->dump(), "uid 0"));
  plan_epoch_.store(0);
  memory_.clear();
  begin({CuMask::full(60)});
  EXPECT_EQ(plan_epoch_.load(), 0U);
  join(1, "a");
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(current("/pinned"), "false");
  EXPECT_GT(plan_epoch_.load(), 2U) << "epochs go on";
}

TEST_F(PlanKeeperTest, RollbackPinsAnEarlierPlan) {
  join(1, "a");
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(keeper_->choose({.action = PlanChoice::pin}, "uid 0").error().code, Errc::not_found);
  join(2, "b");
  ASSERT_TRUE(plan_comes_after(1));
  EXPECT_EQ(keeper_->choose({.epoch = 77}, "uid 0").error().code, Errc::not_found);
  const auto rolled = keeper_->choose({.action = PlanChoice::pin}, "uid 0");
  ASSERT_TRUE(rolled) << rolled.error().message();
  EXPECT_EQ(current("/reason"), "\"plan 1 again, by uid 0\"");
  EXPECT_EQ(current("/workers").find("\"b\""), std::string::npos);
  EXPECT_TRUE(reader(1).groups(*rolled));
  EXPECT_FALSE(reader(2).groups(*rolled));
  EXPECT_EQ(keeper_->choose({.action = 9}, "uid 0").error().code, Errc::malformed);
}

TEST_F(PlanKeeperTest, WhatIsNoPlanForThisPoolIsRefusedAndChangesNothing) {
  join(1, "a");
  ASSERT_TRUE(plan_comes_after(0));
  const json plan = keeper_->document(0).value();
  const auto refusal = [&](const std::string& text) {
    const auto applied = keeper_->apply(text, "uid 0");
    EXPECT_FALSE(applied);
    return applied ? "" : applied.error().message();
  };
  EXPECT_THAT(refusal("{"), HasSubstr("no JSON"));
  EXPECT_THAT(refusal("{\"schema\":1e999}"), HasSubstr("no JSON"));
  EXPECT_THAT(refusal("{\"x\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}"),
              HasSubstr("/schema is missing"));
  EXPECT_THAT(refusal("{}"), HasSubstr("/schema is missing"));
  json other = plan;
  other["pool"]["streams"][0]["cu_list"] = "0-14";
  EXPECT_THAT(refusal(other.dump()), HasSubstr("for another pool"));
  other = plan;
  json groups = json::array();
  for (int g = 0; g < 129; ++g) groups.push_back(g);
  other["workers"][0]["first_kernel_of_group"] = groups;
  for (const char* key : {"kernels", "shapes_of_group", "alone_us_of_group"})
    other["workers"][0].erase(key);
  other["rows"][0]["stream_of_group"][0] = json(json::array_t(129, 0U));
  EXPECT_THAT(refusal(other.dump()), HasSubstr("129 groups of kernels; at most 128"));
  EXPECT_EQ(plan_epoch_.load(), 1U);
  EXPECT_EQ(keeper_->records().size(), 1U);
}

TEST_F(PlanKeeperTest, SimulatedPlansTakeThePlaceOfTheFirst) {
  config_.planner.simulate = true;
  begin();
  join(1, "a");
  join(2, "b");
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 2 &&
           document->at(json::json_pointer("/rows/2/simulated_value")) > 0;
  }));
  EXPECT_EQ(current("/complete"), "true");
}

TEST_F(PlanKeeperTest, ForTheSameWorkersAJudgedPlanIsFollowedByAJudgedOne) {
  config_.planner.simulate = true;
  config_.planner.time_limit = std::chrono::minutes(1);
  begin();
  const Memory& memory = join(1, "a", "alexnet-b1");
  join(2, "b", "shufflenet_v2_x1_0-b1");
  const auto is_judged = [&](std::uint64_t epoch) {
    const auto document = keeper_->document(epoch);
    return document && document->at("workers").size() == 2 &&
           document->at(json::json_pointer("/rows/2/simulated_value")) > 0;
  };
  ASSERT_TRUE(eventually([&] { return is_judged(0); }));
  const std::uint64_t epoch = plan_epoch_.load();
  memory.request->time_permille = 3000;
  keeper_->look_at_loads();
  ASSERT_TRUE(plan_comes_after(epoch));
  EXPECT_TRUE(is_judged(epoch + 1));
}

TEST_F(PlanKeeperTest, WithTheRatesOfAllWorkersRowsAreChosenByArrivals) {
  config_.planner.simulate = true;
  config_.planner.time_limit = std::chrono::minutes(1);
  begin();
  join(1, "a", "alexnet-b1", 500);
  join(2, "b", "shufflenet_v2_x1_0-b1", 300);
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 2 &&
           document->at(json::json_pointer("/rows/2/by_arrivals")) == true;
  }));
  EXPECT_EQ(current("/complete"), "true");
  expect_table(1, 0, {0, 1});
  expect_table(2, 1, {0, 1});
}

TEST_F(PlanKeeperTest, EndingDoesNotWaitForAPlan) {
  config_.planner.simulate = true;
  config_.planner.time_limit = std::chrono::minutes(10);
  begin();
  for (std::uint64_t id = 1; id <= 7; ++id)
    join(id, "w", "densenet201-b32").request->time_permille = 10'000;
  keeper_->look_at_loads();
  ASSERT_TRUE(plan_comes_after(0));
  // Simulating it all takes minutes.
  const auto from = std::chrono::steady_clock::now();
  keeper_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - from, std::chrono::seconds(20));
}

TEST_F(PlanKeeperTest, UnderAPinAFreePartGoesToWhoeverWaitsForIt) {
  join(1, "a");
  join(2, "a");
  ASSERT_TRUE(eventually([&] {
    const auto document = keeper_->document(0);
    return document && document->at("workers").size() == 2;
  }));
  const auto epoch = keeper_->apply(keeper_->document(0)->dump(), "uid 0").value();
  EXPECT_EQ(reader(1).groups(epoch)->seat, 0U);
  EXPECT_EQ(reader(2).groups(epoch)->seat, 1U);
  join(3, "a");
  EXPECT_FALSE(reader(3).groups(epoch)) << "both parts are taken";
  keeper_->remove(WorkerId{1});
  EXPECT_EQ(reader(2).groups(epoch)->seat, 1U) << "it keeps its part";
  EXPECT_EQ(reader(3).groups(epoch)->seat, 0U) << "it has waited for this one";
  keeper_->remove(WorkerId{3});
  join(4, "a");
  EXPECT_EQ(reader(4).groups(epoch)->seat, 0U);
}

TEST_F(PlanKeeperTest, HoweverOftenWorkersComeAndGoPlansAreFewAndTheLastIsForWhoIsThere) {
  for (std::uint64_t id = 1; id <= 200; ++id) {
    join(id, "w", "");
    if (id > 1) keeper_->remove(WorkerId{id - 1});
  }
  ASSERT_TRUE(eventually([&] {
    keeper_->look_at_loads();  // as once a second
    return reader(200).groups(plan_epoch_.load()).has_value();
  }));
  EXPECT_LT(plan_epoch_.load(), 40U);
}

TEST_F(PlanKeeperTest, ASeatStaysOverPlansAndIsFreeOnlyAfterItsWorkerHasLeft) {
  EXPECT_FALSE(keeper_->seat_of(WorkerId{1}));
  for (std::uint64_t id = 1; id <= 3; ++id) join(id, "w", "");
  EXPECT_FALSE(keeper_->seat_of(WorkerId{1})) << "no plan yet";
  ASSERT_TRUE(plan_comes_for(3));
  for (std::uint64_t id = 1; id <= 3; ++id) {
    EXPECT_EQ(keeper_->seat_of(WorkerId{id}), id - 1);
    EXPECT_TRUE(keeper_->has_part(WorkerId{id}));
  }
  active_.workers = 0b111;
  keeper_->remove(WorkerId{1});
  EXPECT_EQ(active_.workers, 0b110U) << "it has no request any more";
  ASSERT_TRUE(plan_comes_for(2));
  expect_table(2, 0, {1, 2});
  expect_table(3, 1, {1, 2});
  EXPECT_EQ(current("/workers/0/worker"), "2");
  EXPECT_EQ(current("/workers/0/seat"), "1");
  join(4, "w", "");
  join(5, "w", "");
  ASSERT_TRUE(plan_comes_for(4));
  EXPECT_EQ(keeper_->seat_of(WorkerId{4}), 0U) << "the lowest that is free";
  EXPECT_EQ(keeper_->seat_of(WorkerId{5}), 3U);
  for (std::size_t part = 0; part < 4; ++part) expect_table(part + 2, part, {1, 2, 0, 3});
  EXPECT_FALSE(keeper_->seat_of(WorkerId{1}));
  EXPECT_FALSE(keeper_->has_part(WorkerId{1}));
}

TEST_F(PlanKeeperTest, APinKeepsSeatsAndWhoHasHadOneGoesFirstAfterIt) {
  for (std::uint64_t id = 1; id <= 8; ++id) join(id, id == 8 ? "late" : "w", "");
  ASSERT_TRUE(plan_comes_for(7));
  EXPECT_FALSE(keeper_->seat_of(WorkerId{8}));
  json plan = keeper_->document(0).value();
  plan["workers"][0]["name"] = "late";
  const auto applied = keeper_->apply(plan.dump(), "uid 0");
  ASSERT_TRUE(applied) << applied.error().message();
  // Seven workers have seats; the eighth cannot have one, so its part is nobody's.
  EXPECT_FALSE(keeper_->has_part(WorkerId{8}));
  EXPECT_FALSE(keeper_->has_part(WorkerId{7})) << "six parts for seven";
  EXPECT_EQ(reader(1).stream(*applied, 0b0000001, 0), 0);
  EXPECT_FALSE(reader(1).stream(*applied, 0b1000001, 0)) << "seat 6 has no part";
  EXPECT_EQ(reader(1).groups(*applied)->workers, 0b0111111U);

  keeper_->remove(WorkerId{3});
  EXPECT_EQ(keeper_->seat_of(WorkerId{8}), 2U);
  EXPECT_TRUE(keeper_->has_part(WorkerId{7}));
  EXPECT_TRUE(keeper_->has_part(WorkerId{8}));
  EXPECT_GT(plan_epoch_.load(), *applied) << "the other tables know other seats";
  EXPECT_EQ(current("/pinned"), "true");
  EXPECT_EQ(current("/reason"),
            "\"plan " + std::to_string(*applied) + " again: worker 3 'w' left\"");
  const std::vector<std::uint32_t> seats{2, 0, 1, 6, 3, 4, 5};
  expect_table(8, 0, seats);
  expect_table(1, 1, seats);
  expect_table(7, 3, seats);
  expect_table(6, 6, seats);

  EXPECT_TRUE(keeper_->choose({.action = PlanChoice::unpin}, "uid 0"));
  join(9, "w", "");
  ASSERT_TRUE(eventually([&] { return current("/pinned") == "false"; }));
  for (std::uint64_t id : {1, 2, 4, 5, 6, 7, 8}) EXPECT_TRUE(keeper_->has_part(WorkerId{id})) << id;
  EXPECT_FALSE(keeper_->has_part(WorkerId{9}));
  EXPECT_EQ(keeper_->seat_of(WorkerId{8}), 2U);
}

TEST_F(PlanKeeperTest, ATableSaysWhatAGroupLooksLikeAndHowLongItTakesAlone) {
  join(1, "a", "vgg19-b8");
  join(2, "b", "");
  ASSERT_TRUE(plan_comes_for(2));
  expect_table(1, 0, {0, 1});
  expect_table(2, 1, {0, 1});
  ProfileLibrary library({model::default_data_dir() / "profiles"}, "mi50");
  const auto kernels = library.find("vgg19-b8")->kernels;
  const PlanTable& table = memory_[1].state->plans[plan_epoch_ % 2];
  ASSERT_EQ(table.kernel_count, kernels.size());
  const double gap_us = gpu().timing.launch_gap_us;
  for (std::uint32_t g = 0; g < table.group_count; ++g) {
    const std::size_t first = table.first_kernel[g];
    const std::size_t end =
        g + 1 < table.group_count ? table.first_kernel[g + 1].load() : kernels.size();
    LaunchShapes shapes;
    for (std::size_t k = first; k < end; ++k) shapes.add(kernels[k]->shape().workgroups);
    EXPECT_EQ(table.shapes[g], shapes.value());
    for (std::size_t s = 0; s < PlanTable::max_streams; ++s) {
      double alone_us = 0;
      for (std::size_t k = first; k < end; ++k)
        alone_us += kernels[k]->time_on_mask_us(s < tree().size() ? tree()[s].count() : 60) +
                    (k == 0 ? 0 : gap_us);
      EXPECT_NEAR(table.alone_us[s][g], alone_us, 1e-3 + alone_us * 1e-6) << s << " " << g;
    }
  }
  EXPECT_NEAR(table.slowdown[0b01], 1, 0.01) << "alone";
  EXPECT_GE(table.slowdown[0b11], 0.99F);
  const PlanReader plan = reader(1);
  EXPECT_FLOAT_EQ(static_cast<float>(plan.predicted_us(plan_epoch_, 0b11, 0, PlanTable::no_mask)),
                  table.alone_us[7][0] * table.slowdown[0b11]);
  // Of a worker without a profile nothing is known.
  const PlanTable& other = memory_[2].state->plans[plan_epoch_ % 2];
  EXPECT_EQ(other.kernel_count, 0U);
  EXPECT_EQ(other.shapes[0], 0U);
  EXPECT_EQ(other.alone_us[0][0], 0);
  EXPECT_EQ(other.slowdown[0b11], 0);
}

TEST_F(PlanKeeperTest, AGroupThatTakesLongerLeadsToAPlanWithItsKernelsScaled) {
  const Memory& memory = join(1, "a", "vgg19-b1");
  ASSERT_TRUE(plan_comes_after(0));
  EXPECT_EQ(keeper_->drift_permille(WorkerId{1}), 0U);
  const auto times = [&] {
    return keeper_->document(0)->at(json::json_pointer("/workers/0/alone_us_of_group/7"));
  };
  const json before = times();
  const std::size_t groups = before.size();
  ASSERT_GT(groups, 4U);
  double whole_us = 0;
  std::size_t longest = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    whole_us += before[g].get<double>();
    if (before[g] > before[longest]) longest = g;
  }
  ASSERT_GT(before[longest], whole_us / 10) << "one that counts by itself";
  SchedulerReport& report = memory.request->scheduler;
  for (std::size_t g = 0; g < groups; ++g) report.group_permille[g] = g == longest ? 1800 : 1000;
  keeper_->look_at_loads();
  report.drift_epoch = plan_epoch_.load() + 1;
  keeper_->look_at_loads();
  EXPECT_EQ(keeper_->drift_permille(WorkerId{1}), 0U) << "of another plan";
  report.drift_epoch = plan_epoch_.load();
  EXPECT_NEAR(keeper_->drift_permille(WorkerId{1}),
              1000 + 800 * before[longest].get<double>() / whole_us, 1);
  keeper_->look_at_loads();
  keeper_->look_at_loads();  // the same again, before there is a plan
  ASSERT_TRUE(plan_comes_after(1));
  EXPECT_THAT(current("/reason"),
              HasSubstr("worker 1 'a': group " + std::to_string(longest + 1) + " of " +
                        std::to_string(groups) + " takes 1.80x predicted"));
  const auto factors = keeper_->document(0)->at(json::json_pointer("/workers/0/kernel_factors"));
  ASSERT_EQ(factors.size(), groups);
  EXPECT_NEAR(factors[longest]["factor"], 1.8, 1e-6);
  EXPECT_NEAR(factors[longest == 0 ? 1 : 0]["factor"], 1, 1e-6);
  double later_us = 0;
  for (const json& us : times()) later_us += us.get<double>();
  EXPECT_NEAR(later_us, whole_us + 0.8 * before[longest].get<double>(), 0.01 * whole_us);

  // Nothing more while it takes what is predicted now, and all the more when it does not.
  for (auto& permille : report.group_permille) permille = 1050;
  report.drift_epoch = plan_epoch_.load();
  keeper_->look_at_loads();
  for (auto& permille : report.group_permille) permille = 1500;
  keeper_->look_at_loads();
  ASSERT_TRUE(plan_comes_after(2));
  EXPECT_THAT(current("/reason"), HasSubstr("its requests 1.50x"));
  double last_us = 0;
  for (const json& us : times()) last_us += us.get<double>();
  EXPECT_NEAR(last_us / later_us, 1.5, 0.01) << "on top of what was planned with";
  EXPECT_EQ(plan_epoch_.load(), 3U);
}

TEST_F(PlanKeeperTest, WhatAWorkerSaysOfItsGroupsMayBeAnything) {
  const Memory& memory = join(1, "a", "vgg19-b8");
  join(2, "b", "");
  ASSERT_TRUE(plan_comes_for(2));
  SchedulerReport& report = memory.request->scheduler;
  std::uint64_t epoch = plan_epoch_.load();
  for (const std::uint16_t permille :
       {std::uint16_t{UINT16_MAX}, std::uint16_t{1}, std::uint16_t{UINT16_MAX}}) {
    for (auto& each : report.group_permille) each = permille;
    report.drift_epoch = epoch;
    keeper_->look_at_loads();
    ASSERT_TRUE(plan_comes_after(epoch));
    epoch = plan_epoch_.load();
    const json document = *keeper_->document(0);
    for (const json& factor : document.at(json::json_pointer("/workers/0/kernel_factors"))) {
      EXPECT_GE(factor["factor"], 0.0999);
      EXPECT_LE(factor["factor"], 10.001);
    }
  }
  // At the limit there is nothing more to follow.
  report.drift_epoch = epoch;
  for (auto& each : report.group_permille) each = UINT16_MAX;
  EXPECT_EQ(keeper_->drift_permille(WorkerId{1}), 10'000U);
  report.drift_epoch = UINT64_MAX;
  keeper_->look_at_loads();
  // One of which nothing is predicted has no drift.
  memory_[2].request->scheduler.drift_epoch = epoch;
  for (auto& each : memory_[2].request->scheduler.group_permille) each = UINT16_MAX;
  keeper_->look_at_loads();
  EXPECT_EQ(keeper_->drift_permille(WorkerId{2}), 0U);
  EXPECT_EQ(keeper_->drift_permille(WorkerId{77}), 0U);
}

TEST_F(PlanKeeperTest, WhatIsReportedOfAWholeRequestIsNotCountedTwice) {
  const Memory& memory = join(1, "a", "vgg19-b8");
  ASSERT_TRUE(plan_comes_after(0));
  const double alone_us = std::stod(current("/workers/0/alone_us"));
  SchedulerReport& report = memory.request->scheduler;
  for (auto& permille : report.group_permille) permille = 2000;
  report.drift_epoch = plan_epoch_.load();
  memory.request->time_permille = 2000;
  keeper_->look_at_loads();
  ASSERT_TRUE(plan_comes_after(1));
  keeper_->look_at_loads();  // the groups are of the plan before
  EXPECT_NEAR(std::stod(current("/workers/0/alone_us")) / alone_us, 2, 0.05);
  EXPECT_EQ(plan_epoch_.load(), 2U);
  for (auto& permille : report.group_permille) permille = 500;
  report.drift_epoch = plan_epoch_.load();
  keeper_->look_at_loads();
  ASSERT_TRUE(plan_comes_after(2));
  EXPECT_NEAR(std::stod(current("/workers/0/alone_us")) / alone_us, 1, 0.05);
}

TEST_F(PlanKeeperTest, APlanOfAnEarlierVersionSaysNothingOfKernels) {
  join(1, "a");
  ASSERT_TRUE(plan_comes_for(1));
  json plan = keeper_->document(0).value();
  for (const char* key : {"kernels", "shapes_of_group", "alone_us_of_group"})
    plan["workers"][0].erase(key);
  plan["rows"][0].erase("slowdown");
  const auto applied = keeper_->apply(plan.dump(), "uid 0");
  ASSERT_TRUE(applied) << applied.error().message();
  const auto groups = reader(1).groups(*applied);
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->kernel_count, 0U);
  EXPECT_EQ(groups->shapes[0], 0U);
  EXPECT_EQ(reader(1).predicted_us(*applied, 1, 0, 0), 0);
  EXPECT_EQ(reader(1).stream(*applied, 1, 0), 0);
}

TEST(DescribeForPlans, TakesTheDescriptionOfTheGpusShapeOrTheNamedOne) {
  Config config;
  GpuTopology gpu;
  gpu.cu_count = 60;
  gpu.shader_engines = 4;
  EXPECT_EQ(describe_for_plans(config, gpu)->name, "mi50");
  gpu.cu_count = 132;
  gpu.shader_engines = 12;
  EXPECT_EQ(describe_for_plans(config, gpu)->name, "h100");
  config.planner.gpu = "mi50";
  EXPECT_THAT(describe_for_plans(config, gpu).error().message(),
              HasSubstr("describes 60 CUs in 4 shader engines, the GPU has 132 in 12"));
  config.planner.gpu = "nonesuch";
  EXPECT_THAT(describe_for_plans(config, gpu).error().message(), HasSubstr("planner.gpu"));
  config.planner.gpu = "";
  gpu.cu_count = 64;
  gpu.shader_engines = 8;
  const auto like = describe_for_plans(config, gpu);
  ASSERT_TRUE(like);
  EXPECT_EQ(like->geometry.cu_count(), 64U);
  EXPECT_EQ(like->geometry.cus_per_shader_engine, 8U);
  gpu.shader_engines = 0;
  EXPECT_EQ(describe_for_plans(config, gpu).error().code, Errc::unsupported);
}

}  // namespace
}  // namespace eclip::daemon
