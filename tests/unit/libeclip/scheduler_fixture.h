// A scheduler between a plan that the test says and a sink that it completes.
#pragma once

#include <gmock/gmock.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tests/unit/libeclip/recording_sink.h"

namespace eclip::test {

/// A worker of seat 0; the other seats are whoever the test says.
class SchedulerTest : public ::testing::Test {
 protected:
  /// Groups begin at `first_kernel`; rows[set] are their streams.
  WorkerPlan plan_of(std::vector<std::uint32_t> first_kernel,
                     std::vector<std::vector<std::uint8_t>> rows, std::uint32_t kernel_count) {
    WorkerPlan plan;
    plan.seat = 0;
    plan.workers = static_cast<std::uint32_t>(rows.size() - 1);
    plan.first_kernel = std::move(first_kernel);
    plan.kernel_count = kernel_count;
    plan.stream = std::move(rows);
    return plan;
  }
  /// Groups of two kernels on these streams, whoever is active (seats 0 and 1).
  WorkerPlan pairs(const std::vector<std::uint8_t>& streams) {
    std::vector<std::uint32_t> first;
    for (std::uint32_t g = 0; g < streams.size(); ++g) first.push_back(2 * g);
    return plan_of(first, {{}, streams, {}, streams},
                   static_cast<std::uint32_t>(2 * streams.size()));
  }
  /// Two such groups that take 10 and 20 us, on whatever stream.
  WorkerPlan timed_pairs() {
    WorkerPlan plan = pairs({0, 1});
    plan.alone_us = std::vector<std::vector<float>>(PlanTable::max_streams, {10, 20});
    plan.slowdown = {0, 1, 1, 1};
    return plan;
  }
  void put_in_force(const WorkerPlan& plan) {
    write_plan(*tables, epoch.load() + 1, plan);
    epoch.fetch_add(1);
  }
  Program& program() {
    if (programs.empty()) programs.push_back(scheduler.create_program());
    return *programs.front();
  }
  Program& another() {
    programs.push_back(scheduler.create_program());
    return *programs.back();
  }
  /// Kernels first .. last, each of one workgroup.
  void dispatch(Program& to, std::uint32_t first, std::uint32_t last,
                BypassReason stays = BypassReason::count) {
    for (std::uint32_t id = first; id <= last; ++id)
      ASSERT_EQ(scheduler.dispatch(to, kernel(id), stays), Enqueued::yes);
  }
  EventUse record(Program& of, std::uint32_t event) {
    EventUse use{};
    EXPECT_EQ(scheduler.record(of, event, &use), Enqueued::yes);
    return use;
  }
  std::uint32_t new_event() { return *scheduler.create_event(); }
  void wait(Program& by, std::vector<EventUse> uses) {
    ASSERT_EQ(scheduler.wait(by, uses), Enqueued::yes);
  }
  void request(Program& of, std::uint32_t first, std::uint32_t last) {
    ASSERT_EQ(scheduler.begin_request(of), Enqueued::yes);
    dispatch(of, first, last);
    ASSERT_EQ(scheduler.end_request(of), Enqueued::yes);
  }
  /// One from 1 to 11 us, the one behind it from 12 to 41 us.
  void complete_two_groups() {
    sink.complete({0, 1}, PacketSink::Times{1000, 11'000});
    sink.complete({1, 1}, PacketSink::Times{12'000, 41'000});
    scheduler.advance();
  }
  void complete_all() {
    sink.complete_all();
    scheduler.advance();
  }
  /// Until nothing more comes.
  void run_dry() {
    std::size_t before = SIZE_MAX;
    while (before != sink.sent.size()) {
      before = sink.sent.size();
      complete_all();
    }
  }
  std::uint64_t bypassed(BypassReason reason) {
    return report.bypassed[static_cast<std::size_t>(reason)].load();
  }
  std::uint64_t switches(SwitchReason reason) {
    return report.switches[static_cast<std::size_t>(reason)].load();
  }

  std::unique_ptr<PlanTables> tables = std::make_unique<PlanTables>();
  std::atomic<std::uint64_t> epoch{0};
  SchedulerReport report{};
  std::atomic<std::uint32_t> active{0};
  RecordingSink sink;
  Scheduler scheduler{sink, PlanReader(*tables, epoch), report, &active};
  std::vector<Program*> programs;
};

}  // namespace eclip::test
