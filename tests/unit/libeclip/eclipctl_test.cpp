// eclipctl's parts: lists, tables, words.
#include <nlohmann/json.hpp>

#include "ipc/printable.h"
#include "tests/unit/libeclip/worker.h"
#include "tools/eclipctl/budget_report.h"
#include "tools/eclipctl/ioctl_report.h"
#include "tools/eclipctl/query.h"
#include "tools/eclipctl/schedule_report.h"
#include "tools/eclipctl/views.h"
#include "tools/text/plan_report.h"
#include "tools/text/table.h"

namespace eclip::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

TEST(Format, DurationsAndBytes) {
  EXPECT_EQ(text::format_duration(40ms), "0.0s");
  EXPECT_EQ(text::format_duration(12340ms), "12.3s");
  EXPECT_EQ(text::format_duration(252s), "4m 12s");
  EXPECT_EQ(text::format_duration(2h + 5min), "2h 5m");
  EXPECT_EQ(text::format_duration(76h), "3d 4h");
  EXPECT_EQ(text::format_bytes(512), "512 B");
  EXPECT_EQ(text::format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(text::format_bytes((1U << 20U) - 1), "1.0 MiB");
  EXPECT_EQ(text::format_ns(850), "850 ns");
  EXPECT_EQ(text::format_ns(12'345), "12.3 us");
  EXPECT_EQ(text::format_ns(999'700), "1 ms");
  EXPECT_EQ(text::format_ns(7'890'000'000), "7.89 s");
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a?[2Jb?");
}

TEST(Format, TablesAlignTheirColumns) {
  text::Table table({{"ID", text::Align::right}, {"NAME"}, {"N", text::Align::right}});
  table.add({"7", "long name", "1"});
  table.add({"12345", "", "22"});
  EXPECT_EQ(table.to_string(),
            "   ID  NAME        N\n"
            "    7  long name   1\n"
            "12345  -          22\n");
}

IoctlRecord mask_changes(std::uint32_t pid, unsigned bucket, std::uint32_t count) {
  IoctlRecord record{};
  record.pid = pid;
  record.number = 0x1a;
  record.count = count;
  record.total_ns = std::uint64_t{count} << bucket;
  record.max_ns = std::uint64_t{1} << bucket;
  record.buckets.at(bucket) = count;
  return record;
}

TEST(IoctlReport, AddsProcessesUpAndNamesQuantiles) {
  ctl::IoctlReport report{
      .records = {mask_changes(7, 10, 98), mask_changes(8, 20, 2)}, .pid = {}, .dispatches = 1000};
  EXPECT_THAT(ctl::to_text(report), HasSubstr("SET_CU_MASK    100       0  2.2 ms  22 us"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("2.05 us  1.05 ms  1.05 ms"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("1.02 us ..  2.05 us         98 ****"));
  EXPECT_THAT(ctl::to_text(report),
              HasSubstr("1000 dispatches since start x 22 us for a mask change (mean of 100)"));
  EXPECT_DOUBLE_EQ(ctl::to_json(report)["avoided"]["seconds"], 1000 * 21975.04e-9);
  report.pid = 8;
  EXPECT_EQ(ctl::to_json(report)["commands"][0]["count"], 2);
  report.pid = 9;
  EXPECT_TRUE(ctl::to_json(report)["commands"].empty());
  EXPECT_THAT(ctl::to_text(report), HasSubstr("process 9 has made no KFD ioctl"));
  report.records = {mask_changes(7, 10, 1), mask_changes(7, 31, 1)};
  report.records[1].max_ns = 60'000'000'000;
  report.pid.reset();
  EXPECT_THAT(ctl::to_text(report), HasSubstr("60 s  60 s")) << "longer than the last bucket";
  EXPECT_THAT(ctl::to_text(report), HasSubstr("2.15 s ..     more          1"));
  report.records = {mask_changes(7, 10, 2)};
  report.records[0].errors = 1;
  report.records[0].errors_ns = 1;
  EXPECT_EQ(ctl::to_json(report)["avoided"]["mask_change_mean_ns"], 2047.0) << "of what succeeded";
  report.records.clear();
  EXPECT_TRUE(ctl::to_json(report)["avoided"]["seconds"].is_null()) << "nothing to go by";
}

TEST(IoctlTop, ShowsRatesAndTheBusiestFirst) {
  KfdProcessRecord calm{};
  calm.pid = 3;
  calm.ioctls = 10;
  KfdProcessRecord busy{};
  busy.pid = 4;
  busy.role = KfdProcessRecord::worker;
  busy.ioctls = 100;
  busy.total_ns = 1'000'000'000;
  KfdProcessRecord later = busy;
  later.ioctls = 300;
  later.total_ns = 2'000'000'000;
  const ctl::IoctlTop top{.before = {calm, busy}, .now = {calm, later}, .interval = 2s};
  const auto list = ctl::to_json(top);
  EXPECT_EQ(list[0]["pid"], 4);
  EXPECT_EQ(list[0]["role"], "worker");
  EXPECT_EQ(list[0]["ioctls_per_s"], 100.0);
  EXPECT_EQ(list[0]["time_in_ioctls"], 0.5);
  EXPECT_EQ(list[1]["ioctls_per_s"], 0.0);
  // A pid that is used again begins anew.
  const auto reused = ctl::to_json(ctl::IoctlTop{.before = {later}, .now = {busy}, .interval = 1s});
  EXPECT_EQ(reused[0]["ioctls_per_s"], 100.0);
}

TEST(BudgetReport, SaysWhoHoldsWhatAndWhenItIsTooMuch) {
  ctl::BudgetReport report{};
  report.budget.budget = report.budget.pool_streams = report.budget.masked_queues = 7;
  report.budget.queues = 30;
  report.budget.hardware_slots = 24;
  report.budget.vmids = 8;
  report.budget.why.assign("no \x1b BTF");
  EXPECT_THAT(ctl::to_text(report), HasSubstr("7 of 7 streams: 7 eclipd's, ? of others\n"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("30 on 24 hardware slots: more than fit"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("no ? BTF"));
  KfdProcessRecord other{};
  other.pid = 77;
  other.queues = 2;
  other.masked_queues = 1;
  KfdProcessRecord idle{};
  idle.pid = 78;
  KfdProcessRecord older{};
  older.pid = 79;
  older.queues = 3;
  older.queues_from_before = 2;
  report.processes = {other, idle, older};
  report.budget.tier.kind = BudgetTier::tracepoints;
  report.budget.processes = 9;
  report.budget.masked_queues = 8;
  report.budget.unseen = 3;
  EXPECT_THAT(ctl::to_text(report), HasSubstr("3 calls or queues could not be accounted"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("1 of others - OVER BUDGET"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("none is refused"));
  EXPECT_THAT(ctl::to_text(report), Not(HasSubstr("78")));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("9 on 8 VMIDs: more than fit"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("2 queues are older than what counts here"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("0 to 2"));
  EXPECT_EQ(ctl::to_json(report)["holders"].size(), 2U);

  report.budget.tier = {.kind = BudgetTier::guard,
                        .policy = BudgetTier::enforce,
                        .verdict = static_cast<std::uint32_t>(bpf::GuardVerdict::fmod_ret),
                        .accounting = guard_by_probes};
  report.budget.refused = 5;
  report.budget.unchecked = 1;
  DenialRecord denial{};
  denial.pid = 80;
  denial.refused = 5;
  denial.reason = guard_no_lease;
  denial.command.assign("sneaky\x1b");
  report.denials = {denial};
  EXPECT_THAT(ctl::to_text(report), HasSubstr("enforce; BPF fmod_ret refuses"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("PAST THE GUARD   1 calls"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("sneaky?"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("a CU mask without a lease"));
  EXPECT_EQ(ctl::to_json(report)["refused"], 5);
  EXPECT_EQ(ctl::to_json(report)["denials"][0]["latest"], "a CU mask without a lease");
}

TEST(Views, ShowTheStatus) {
  StatusReply status{};
  status.version.assign("0.1.0");
  status.gpu_name.assign("Test GPU");
  status.streams_leased = 2;
  status.stream_count = status.stream_budget = 7;
  status.uptime_ms = 61'000;
  status.device_time_rate = 1ULL << 32U;
  EXPECT_THAT(ctl::to_text(status), HasSubstr("up 1m 1s"));
  EXPECT_THAT(ctl::to_text(status), HasSubstr("2 of 7 leased"));
  EXPECT_THAT(ctl::to_text(status), HasSubstr("0 waiting"));
  EXPECT_THAT(ctl::to_text(status), HasSubstr("power            -"));
  EXPECT_THAT(ctl::to_text(status), Not(HasSubstr("device time")));
  EXPECT_TRUE(ctl::to_json(status)["power_w"].is_null());
  status.device_time_rate /= 4;
  status.has_power = 1;
  status.power_mw = 25'500;
  EXPECT_THAT(ctl::to_text(status), HasSubstr("runs at 0.2500 of host time"));
  EXPECT_THAT(ctl::to_text(status), HasSubstr("25.5 W"));
  EXPECT_EQ(ctl::to_json(status)["power_w"], 25.5);
}

std::optional<std::vector<Message>> answer_lists(const Message& request) {
  const std::uint32_t sequence = request.header.sequence;
  StreamRecord stream{};
  stream.cu_count = 15;
  stream.mask.assign("0-14");
  switch (request.header.type) {
    case MessageType::list_streams: {
      StreamRecord second = stream;
      second.stream = 1;
      second.lease = 101;
      return std::vector{make_message(MessageType::stream_record, sequence, stream),
                         make_message(MessageType::stream_record, sequence, second),
                         make_message(MessageType::end, sequence, Handle{})};
    }
    case MessageType::list_clients:
      return std::vector{make_message(MessageType::end, sequence, Handle{})};
    case MessageType::list_leases:  // the wrong records
      return std::vector{make_message(MessageType::stream_record, sequence, stream)};
    case MessageType::lease_revoke: {
      const auto asked = payload_of<LeaseRevoke>(request);
      if (asked.lease == 5 && asked.grace_ms == 70)
        return std::vector{make_message(MessageType::ok, sequence, Handle{5})};
      if (asked.lease == 6 && asked.grace_ms == LeaseRevoke::default_grace)
        return std::vector{make_message(MessageType::ok, sequence, Handle{6})};
      return std::vector{make_error(
          sequence, Error{make_error_code(Errc::access_denied), "lease is of another user"})};
    }
    case MessageType::get_schedule: {
      const std::uint64_t worker = payload_of<Handle>(request).value;
      if (worker != 3)
        return std::vector{make_error(
            sequence, Error{make_error_code(Errc::not_found), "worker 4 is not connected"})};
      ScheduleRecord schedule{};
      schedule.worker = worker;
      schedule.requests = 7;
      return std::vector{make_message(MessageType::schedule_record, sequence, schedule)};
    }
    case MessageType::get_status:
      return std::vector{
          make_error(sequence, Error{make_error_code(Errc::device_failed), "the daemon's words"})};
    default:
      return std::nullopt;
  }
}

TEST(Views, ShowTheLifeOfALease) {
  LeaseRecord queued{};
  queued.lease = 9;
  queued.stream = LeaseAcquire::any_stream;
  queued.state = static_cast<std::uint32_t>(LeaseState::queued);
  queued.priority = 2;
  queued.position = 3;
  queued.deadline_ms = 1500;
  LeaseRecord revoked{};
  revoked.lease = 8;
  revoked.stream = 4;
  revoked.cu_count = 15;
  revoked.state = static_cast<std::uint32_t>(LeaseState::revoked);
  revoked.reason = static_cast<std::uint32_t>(LeaseEnd::administrator);
  revoked.priority = 1;
  revoked.share_percent = 25;
  revoked.deadline_ms = 200;
  EXPECT_EQ(ctl::to_text(std::vector{queued, revoked}),
            "LEASE  STATE    STREAM  CUS  WORKER  PID  PRIORITY  SHARE  PACKETS  SINCE  "
            "POSITION, TIME LEFT     REASON\n"
            "    9  queued        -    -       0    0  high          -        0   0.0s  "
            "3 before it, 1.5s left  -\n"
            "    8  revoked       4   15       0    0  normal      25%        0   0.0s  "
            "0.2s left               by the administrator\n");
  const auto json = ctl::to_json(std::vector{queued, revoked});
  EXPECT_TRUE(json[0]["stream"].is_null());
  EXPECT_EQ(json[0]["position"], 3);
  EXPECT_TRUE(json[0]["reason"].is_null());
  EXPECT_TRUE(json[1]["position"].is_null());
  EXPECT_EQ(json[1]["reason"], "by the administrator");
  EXPECT_EQ(json[1]["ends_in_ms"], 200);
}

TEST(Views, ShowScheduledLeasesInOneLineUnlessOneIsNotAsItShouldBe) {
  std::vector<LeaseRecord> leases;
  for (std::uint32_t i = 0; i < 4; ++i) {
    LeaseRecord lease{};
    lease.lease = 10 + i;
    lease.worker = 3;
    lease.stream = i < 3 ? i : Scheduled::no_mask;
    lease.cu_count = i < 3 ? 15 : 60;
    lease.state = static_cast<std::uint32_t>(LeaseState::active);
    lease.packets = 5;
    lease.scheduled = 1;
    leases.push_back(lease);
  }
  EXPECT_EQ(ctl::to_text(leases),
            "LEASE  STATE       STREAM       CUS  WORKER  PID  PRIORITY  SHARE  PACKETS  SINCE  "
            "POSITION, TIME LEFT  REASON\n"
            "10-13  by plan  4 streams  up to 60       3    0  -             -       20   0.0s  "
            "-                    -\n");
  leases[3].state = static_cast<std::uint32_t>(LeaseState::revoked);
  EXPECT_THAT(ctl::to_text(leases), HasSubstr("10-12  by plan  3 streams"));
  EXPECT_THAT(ctl::to_text(leases), HasSubstr("   13  revoked    no mask"));
  const auto json = ctl::to_json(leases);
  ASSERT_EQ(json.size(), 4U);
  EXPECT_EQ(json[0]["stream"], 0);
  EXPECT_TRUE(json[3]["stream"].is_null());
  EXPECT_EQ(json[3]["scheduled"], true);
}

TEST(Views, ShowAClientsDeviceTimeAndEnergy) {
  ClientRecord client{};
  client.device_us = 1'234'567;
  EXPECT_THAT(ctl::to_text(std::vector{client}), HasSubstr("1.235s"));
  EXPECT_TRUE(ctl::to_json(std::vector{client})[0]["energy_j"].is_null());
  client.energy_mj = 4321;
  EXPECT_THAT(ctl::to_text(std::vector{client}), HasSubstr("4.3 J"));
  EXPECT_EQ(ctl::to_json(std::vector{client})[0]["energy_j"], 4.321);
}

ctl::ScheduleReport schedule_of_worker_3() {
  ctl::ScheduleReport report{};
  report.client.worker = report.schedule.worker = 3;
  report.client.pid = 812;
  report.client.uid = 1000;
  report.client.name.assign("llm\x1b");
  report.schedule.is_scheduled = 1;
  report.schedule.latency_class = 1;
  report.schedule.has_part = 1;
  report.schedule.seat = 2;
  report.schedule.is_active = 1;
  report.schedule.drift_permille = 1040;
  report.schedule.requests = 100;
  report.schedule.scheduled = 9'300;
  report.schedule.bypassed[static_cast<std::size_t>(BypassReason::unknown)] = 500;
  report.schedule.bypassed[static_cast<std::size_t>(BypassReason::graph)] = 200;
  report.schedule.switches[static_cast<std::size_t>(SwitchReason::active_set)] = 40;
  report.schedule.switches[static_cast<std::size_t>(SwitchReason::new_plan)] = 2;
  report.schedule.barriers = 100;
  report.schedule.packets = 10'100;
  report.plan = {{"epoch", 12},
                 {"unmasked", 7},
                 {"workers",
                  {{{"name", "other"}, {"worker", 1}, {"seat", 0}},
                   {{"name", "llm"},
                    {"worker", 3},
                    {"seat", 2},
                    {"kernels", 760},
                    {"first_kernel_of_group", {0, 10, 20, 30}}}}},
                 {"rows", {{{"active", 3}, {"stream_of_group", {{0}, {5, 3, 7, 5}}}}}}};
  return report;
}

TEST(ScheduleReport, SaysHowAWorkerIsScheduledAndWhyNot) {
  ctl::ScheduleReport report = schedule_of_worker_3();
  EXPECT_EQ(ctl::to_text(report),
            "worker           3 'llm?', pid 812, uid 1000\n"
            "plan             12: its worker 1, seat 2; 4 groups of 760 kernels; stream 3, 5, no "
            "mask when all are active\n"
            "scheduled        yes, class latency\n"
            "active now       yes\n"
            "requests         100\n"
            "kernels          9300 by the plan: 93.0 %\n"
            "                 500 not: 5.0 %, unknown request\n"
            "                 200 not: 2.0 %, graph\n"
            "switches         40 active set, 2 new plan\n"
            "barriers         100 of 10100 packets: 1.0 %\n"
            "drift            its kernels take 1.04x predicted\n");
  const auto json = ctl::to_json(report);
  EXPECT_EQ(json["plan"]["seat"], 2);
  EXPECT_EQ(json["plan"]["groups"], 4);
  EXPECT_EQ(json["schedule"]["latency_class"], "latency");
  EXPECT_EQ(json["schedule"]["kernels_bypassed"]["unknown_request"], 500);
  EXPECT_EQ(json["schedule"]["kernels_bypassed"]["no_plan"], 0);
  EXPECT_EQ(json["schedule"]["switches"]["active_set"], 40);
  EXPECT_EQ(json["schedule"]["time_of_predicted"], 1.04);

  report.schedule = {};
  report.plan = nullptr;
  EXPECT_EQ(ctl::to_text(report),
            "worker           3 'llm?', pid 812, uid 1000\n"
            "plan             - (no part in the plan in force; eclipctl plan shows who has one)\n"
            "scheduled        no: it leases streams itself\n");
  EXPECT_TRUE(ctl::to_json(report)["plan"].is_null());
  EXPECT_TRUE(ctl::to_json(report)["schedule"].is_null());
}

TEST(ScheduleReport, IsTheWorkersOwnWordWhateverThatIs) {
  ctl::ScheduleReport report = schedule_of_worker_3();
  report.schedule.latency_class = 77;
  report.schedule.scheduled = UINT64_MAX;
  report.schedule.bypassed.fill(UINT64_MAX);
  report.schedule.switches.fill(UINT64_MAX);
  report.schedule.packets = 0;
  report.schedule.drift_permille = 0;
  EXPECT_THAT(ctl::to_text(report), HasSubstr("18446744073709551615 by the plan: 12.5 %"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("100 of 0 packets: 0.0 %"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("class throughput"));
  EXPECT_THAT(ctl::to_text(report), HasSubstr("drift            -"));
  for (const nlohmann::json& plan :
       {nlohmann::json(7), nlohmann::json::array(), nlohmann::json{{"workers", 1}},
        nlohmann::json{{"workers", {1, {{"worker", 3}}}}, {"rows", {1}}}}) {
    report.plan = plan;
    EXPECT_NE(ctl::to_text(report), "");
    EXPECT_NE(ctl::to_json(report).dump(), "");
  }
}

TEST(Query, AsksForAWorkersScheduleAndSaysWhoIsNotThere) {
  const FakeDaemon daemon({.answer = answer_lists});
  auto connection = ctl::DaemonConnection::open(daemon.path());
  ASSERT_TRUE(connection.has_value());
  const auto schedule = connection->schedule(3);
  ASSERT_TRUE(schedule.has_value()) << schedule.error().message();
  EXPECT_EQ(schedule->worker, 3U);
  EXPECT_EQ(schedule->requests, 7U);
  EXPECT_EQ(connection->schedule(4).error().code, Errc::not_found);
}

TEST(Query, ReadsListsToTheirEnd) {
  const FakeDaemon daemon({.answer = answer_lists});
  auto connection = ctl::DaemonConnection::open(daemon.path());
  ASSERT_TRUE(connection.has_value());
  const auto streams = connection->streams();
  ASSERT_TRUE(streams.has_value()) << streams.error().message();
  EXPECT_EQ(streams->size(), 2U);
  EXPECT_EQ(ctl::to_text(*streams),
            "STREAM  CUS  STATE   LEASE  PACKETS  CU MASK\n"
            "     0   15  free        -        0  0-14\n"
            "     1   15  leased    101        0  0-14\n");
  EXPECT_EQ(ctl::to_json(*streams)[1]["lease"], 101);
  EXPECT_TRUE(ctl::to_json(*streams)[0]["lease"].is_null());
  const auto clients = connection->clients();
  ASSERT_TRUE(clients.has_value());
  EXPECT_TRUE(clients->empty());
}

TEST(Query, ReportsErrorsAndWrongRecords) {
  const FakeDaemon daemon({.answer = answer_lists});
  auto connection = ctl::DaemonConnection::open(daemon.path());
  ASSERT_TRUE(connection.has_value());
  const auto status = connection->status();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message(), "the daemon's words");
  EXPECT_EQ(connection->leases().error().code, Errc::malformed);
}

TEST(Query, RevokesWithTheGraceAskedForAndReportsARefusal) {
  const FakeDaemon daemon({.answer = answer_lists});
  auto connection = ctl::DaemonConnection::open(daemon.path());
  ASSERT_TRUE(connection.has_value());
  EXPECT_TRUE(connection->revoke(5, std::chrono::milliseconds(70)));
  EXPECT_TRUE(connection->revoke(6, std::nullopt));
  EXPECT_EQ(connection->revoke(7, std::nullopt).error().code, Errc::access_denied);
}

TEST(Query, KnowsWhenNobodyListens) {
  const auto connection = ctl::DaemonConnection::open("/nonexistent/eclipd.sock");
  ASSERT_FALSE(connection.has_value());
  EXPECT_EQ(connection.error().code, Errc::gone);
}

TEST(PlanReport, ShowsWhatADocumentDoesNotSayAsMissing) {
  // Whatever comes, reports have no expectation that they throw for.
  const std::vector<nlohmann::json> documents{
      nullptr,
      7,
      nlohmann::json::array(),
      {{"workers", 1}, {"rows", "x"}, {"pool", {{"streams", {1, nullptr}}}}},
      {{"workers", {{{"name", 1}}}},
       {"rows", {{{"active", "a"}, {"stream_of_group", {1, {2, 3}}}}}}},
      {{"candidates", {1, {{"name", "n"}}}}, {"violations", {{}}}, {"epoch", 1}, {"made_at", -1}}};
  for (const auto& document : documents) {
    EXPECT_NE(text::plan_table(document), "");
    EXPECT_NE(text::plan_explanation(document), "");
    EXPECT_EQ(text::plan_difference(document, document), "No difference.\n");
  }
  EXPECT_THAT(text::plan_table({{"workers", {{{"name", "vision"}}}}}), HasSubstr("0  vision  -"));
}

TEST(PlanReport, SaysWhyEachCandidateWasRejected) {
  nlohmann::json plan{{"rows", {{{"active", {0}}, {"value", 10}}}},
                      {"candidates",
                       {{{"name", "slow"}, {"all_active_value", 12}},
                        {{"name", "equal"}, {"all_active_value", 10.002}},
                        {{"name", "fast"}, {"all_active_value", 8}},
                        {{"name", "simulated"}, {"all_active_value", 8}, {"simulated_value", 11}},
                        {{"name", "unknown"}}}}};
  const std::string text = text::plan_explanation(plan);
  EXPECT_THAT(text, ContainsRegex("slow +12.000 +20.0 % worse\n"));
  EXPECT_THAT(text, ContainsRegex("equal +10.002 +as good for all at once; the plan also"));
  EXPECT_THAT(text, ContainsRegex("fast +8.000 +20.0 % better for all at once, but worse over the "
                                  "active sets"));
  EXPECT_THAT(text, ContainsRegex("simulated +11.000 +10.0 % worse\n"));
  EXPECT_THAT(text, ContainsRegex("unknown +-  -\n"));
  plan["rows"][0]["by_arrivals"] = true;
  EXPECT_THAT(text::plan_explanation(plan),
              ContainsRegex("fast +8.000 +20.0 % better for all at once, but worse with requests "
                            "that arrive at random"));
}

}  // namespace
}  // namespace eclip::test
