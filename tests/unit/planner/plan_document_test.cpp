#include "daemon/planner/plan_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr std::uint32_t document_cus = 16;

class PlanDocumentTest : public ::testing::Test {
 protected:
  PlanDocumentTest() {
    std::mt19937 random(3);
    for (int w = 0; w < 3; ++w) workers_.push_back(random_worker(random, 40));
    PlannerOptions options;
    options.group_us = 50;
    options.pool = tree_masks(document_cus, 4);
    plan_ = make_plan(small_gpu(), workers_, options).value();
    document_ = plan_document(plan_, workers_, small_gpu(), Objective::latency);
  }
  /// The error for the document with another value at a place.
  [[nodiscard]] std::string refusal(const std::string& pointer, const json& value) const {
    json changed = document_;
    changed[json::json_pointer(pointer)] = value;
    const auto plan = parse_plan(changed, document_cus);
    EXPECT_FALSE(plan) << pointer << " = " << value;
    if (plan) return "";
    EXPECT_EQ(plan.error().code, Errc::malformed);
    return plan.error().message();
  }

  std::vector<Worker> workers_;
  Plan plan_;
  json document_;
};

TEST_F(PlanDocumentTest, IsReadAsThePlanThatWasWritten) {
  const auto text = json::parse(document_.dump());
  const auto read = parse_plan(text, document_cus);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->unmasked, plan_.unmasked);
  ASSERT_EQ(read->pool.size(), plan_.pool.streams.size());
  for (std::size_t s = 0; s < read->pool.size(); ++s)
    EXPECT_EQ(read->pool[s], plan_.pool.streams[s].mask);
  ASSERT_EQ(read->workers.size(), 3U);
  for (std::size_t w = 0; w < 3; ++w) {
    EXPECT_EQ(read->workers[w].name, workers_[w].name);
    EXPECT_EQ(read->workers[w].first_kernel, plan_.groups[w]);
  }
  ASSERT_EQ(read->rows.size(), plan_.rows.size());
  for (std::size_t r = 0; r < read->rows.size(); ++r)
    EXPECT_EQ(read->rows[r], plan_.rows[r].streams);
  EXPECT_EQ(read->value, plan_.value);
}

TEST_F(PlanDocumentTest, SaysWhatGroupsTakeAloneAndHowMuchLongerInEachRow) {
  const auto read = parse_plan(document_, document_cus).value();
  for (std::size_t w = 0; w < 3; ++w) {
    const auto& worker = read.workers[w];
    EXPECT_EQ(worker.kernels, workers_[w].kernels.size());
    ASSERT_EQ(worker.shapes.size(), worker.first_kernel.size());
    ASSERT_EQ(worker.alone_us.size(), read.pool.size() + 1);
    for (WorkerSet set = 1; set <= 7; ++set) {
      if (!(set >> w & 1U)) {
        EXPECT_EQ(read.slowdown[set - 1][w], 0);
        continue;
      }
      double alone_us = 0;
      std::uint32_t switches = 0;
      const auto& streams = read.rows[set - 1][w];
      for (std::size_t g = 0; g < streams.size(); ++g) {
        alone_us += static_cast<double>(worker.alone_us[streams[g]][g]);
        switches += g > 0 && streams[g] != streams[g - 1] ? 1 : 0;
      }
      const double per_switch_us = small_gpu().timing.barrier_us - small_gpu().timing.launch_gap_us;
      const double host_us = CostOptions{}.request_overhead_us;
      EXPECT_NEAR(
          (alone_us + switches * per_switch_us) * static_cast<double>(read.slowdown[set - 1][w]) +
              host_us,
          plan_.row(set).prediction.request_us[w], 0.03 * plan_.row(set).prediction.request_us[w])
          << "kernels that are nearly equal count as equal in the plan";
    }
  }
  json changed = document_;
  changed["rows"][6]["slowdown"][0] = read.slowdown[6][0] * 1.1F;
  const auto other = parse_plan(changed, document_cus).value();
  EXPECT_TRUE(read.acts_as(other));
  EXPECT_TRUE(read.slows_as(other, 1.2));
  EXPECT_FALSE(read.slows_as(other, 1.05));
  changed["workers"][0]["alone_us_of_group"][0][0] = 7;
  EXPECT_FALSE(read.acts_as(parse_plan(changed, document_cus).value()));
}

TEST_F(PlanDocumentTest, WhatIsSaidOfKernelsMayBeMissingAndMustBeRight) {
  json bare = document_;
  for (json& worker : bare["workers"])
    for (const char* key : {"kernels", "shapes_of_group", "alone_us_of_group"}) worker.erase(key);
  for (json& row : bare["rows"]) row.erase("slowdown");
  const auto read = parse_plan(bare, document_cus);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->workers[0].kernels, 0U);
  EXPECT_TRUE(read->workers[0].alone_us.empty());
  EXPECT_TRUE(read->slowdown.empty());
  EXPECT_THAT(refusal("/workers/0/kernels", 1),
              HasSubstr("more than the first kernel of the last group"));
  EXPECT_THAT(refusal("/workers/0/kernels", "many"), HasSubstr("/kernels must be a whole number"));
  EXPECT_THAT(refusal("/workers/0/shapes_of_group", {1}), HasSubstr("/shapes_of_group must be a"));
  EXPECT_THAT(refusal("/workers/0/shapes_of_group/0", -1), HasSubstr("below 2^32"));
  EXPECT_THAT(refusal("/workers/0/alone_us_of_group", {1}), HasSubstr("a list of 8 lists"));
  EXPECT_THAT(refusal("/workers/0/alone_us_of_group/2", {1}),
              HasSubstr("/alone_us_of_group/2 must be a list of"));
  EXPECT_THAT(refusal("/workers/0/alone_us_of_group/2/0", -1), HasSubstr("a number from 0"));
  EXPECT_THAT(refusal("/rows/6/slowdown", {1}), HasSubstr("/rows/6/slowdown must be a list of 3"));
  EXPECT_THAT(refusal("/rows/6/slowdown/1", nullptr), HasSubstr("/rows/6/slowdown/1 must be"));
}

TEST_F(PlanDocumentTest, ErrorsNameThePlaceAndWhatBelongsThere) {
  EXPECT_THAT(refusal("/schema", "eclip.plan/9"), HasSubstr("/schema is 'eclip.plan/9'"));
  EXPECT_THAT(refusal("/pool", 1), HasSubstr("/pool must be an object"));
  EXPECT_THAT(refusal("/pool/streams/1/cu_list", "99"), HasSubstr("/pool/streams/1/cu_list"));
  EXPECT_THAT(refusal("/pool/streams", json::array_t(8)), HasSubstr("at most 7 streams"));
  EXPECT_THAT(refusal("/workers", json::array()), HasSubstr("/workers must be a list of 1 to 7"));
  EXPECT_THAT(refusal("/workers/2/name", 7), HasSubstr("/workers/2/name must be a text"));
  EXPECT_THAT(refusal("/workers/0/first_kernel_of_group", json::array()),
              HasSubstr("must be a list that is not empty"));
  EXPECT_THAT(refusal("/workers/0/first_kernel_of_group/0", 1), HasSubstr("must be 0"));
  EXPECT_THAT(refusal("/workers/0/first_kernel_of_group", {0, 5, 5}),
              HasSubstr("/2 must be more than the one before"));
  EXPECT_THAT(refusal("/rows", json::array()), HasSubstr("a list of 7 rows"));
  EXPECT_THAT(refusal("/rows/3/active", 3), HasSubstr("/rows/3/active must be 4"));
  EXPECT_THAT(refusal("/rows/0/stream_of_group/1", {0}), HasSubstr("a list of 0 streams"));
  EXPECT_THAT(refusal("/rows/0/stream_of_group/0/0", 8),
              HasSubstr("/rows/0/stream_of_group/0/0 must be a whole number below 8"));
  EXPECT_THAT(refusal("/rows/0/stream_of_group/0/0", -1), HasSubstr("must be a whole number"));
  EXPECT_THAT(refusal("/value", "good"), HasSubstr("/value must be a number"));
}

TEST_F(PlanDocumentTest, AnyValueAnywhereIsReadOrRefused) {
  const json flat = document_.flatten();
  const std::array<json, 8> values{nullptr,       true,          -1, 1e300, 4294967296, "x",
                                   json::array(), json::object()};
  for (const auto& [pointer, old] : flat.items())
    for (const json& value : values) {
      json changed = document_;
      changed[json::json_pointer(pointer)] = value;
      const auto plan = parse_plan(changed, document_cus);
      const std::string error = plan ? "/" : plan.error().message();
      EXPECT_THAT(error, HasSubstr("/")) << pointer;
    }
  for (const auto& [key, value] : document_.items()) {
    json changed = document_;
    changed.erase(key);
    const auto plan = parse_plan(changed, document_cus);
    const std::string missing = "/" + key + " is missing";
    EXPECT_THAT(plan ? missing : plan.error().message(), HasSubstr(missing));
  }
}

TEST(PlanDocument, WhatIsNoObjectIsRefused) {
  for (const json& value : {json(), json(1), json::array(), json("x")})
    EXPECT_FALSE(parse_plan(value, document_cus));
}

}  // namespace
}  // namespace eclip::planner
