// What is printed and drawn of a profile.
#include "tools/eclip-profile/show.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/property_tree/xml_parser.hpp>
#include <sstream>

namespace eclip::profile {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

model::ProfileDocument some_profile() {
  return {.model = "m<1>",
          .batch = 8,
          .precision = "fp16",
          .device_name = "GPU & co",
          .device_compute_units = 60,
          .cu_counts = {15, 60},
          .samples = {4, 5},
          .request_us_at_cu_counts = {{15, 52}, {60, 21}},
          .request_us_unmasked = 19.5,
          .note = "a note",
          .kernels = {{"void conv<int>(\x01\xFF)", {.workgroups = 1234}, {30, 10}, {1, 2}},
                      {std::string(100, 'b'), {.workgroups = 20}, {20, 0}, {2, 4}}}};
}

TEST(ProfileTable, HasEachKernelAndTotals) {
  const std::string table = table_of(some_profile());
  EXPECT_THAT(table, HasSubstr("m<1>, batch 8, fp16, measured on GPU & co (60 CUs): 2 kernels"));
  EXPECT_THAT(table, HasSubstr("a note"));
  EXPECT_THAT(table, ContainsRegex("0 void conv.* 1234 +64 +30.00 +10.00 +x3.00\n"));
  EXPECT_THAT(table, ContainsRegex("1 bbb[b]*\\.\\.\\. +20 +64 +20.00 +- +-\n"));
  EXPECT_THAT(table, ContainsRegex("sum of the kernels +50.00 +10.00 +x5.00\n"));
  EXPECT_THAT(table, ContainsRegex("whole request +52.00 +21.00 +x2.48\n"));
  EXPECT_THAT(table, ContainsRegex("requests measured +4 +5"));
  EXPECT_THAT(table, HasSubstr("without a mask: 19.50 us"));
}

TEST(ProfileSvg, IsXmlWithTitleAxesAndCurves) {
  const std::string svg = svg_of(some_profile());
  std::istringstream stream(svg);
  boost::property_tree::ptree tree;
  ASSERT_NO_THROW(boost::property_tree::read_xml(stream, tree)) << svg;
  EXPECT_THAT(svg, HasSubstr("m&lt;1&gt;, batch 8: time of each kernel against compute units"));
  EXPECT_THAT(svg, HasSubstr("measured on GPU &amp; co"));
  EXPECT_THAT(svg, HasSubstr(">compute units<"));
  EXPECT_THAT(svg, HasSubstr(">time, microseconds<"));
  for (const char* label : {">15<", ">60<", ">10<", ">100<"}) EXPECT_THAT(svg, HasSubstr(label));
  EXPECT_THAT(svg, HasSubstr(">whole request<"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(ProfileSvg, OnePointIsACurveToo) {
  model::ProfileDocument profile = some_profile();
  profile.cu_counts = {60};
  profile.request_us_at_cu_counts = {{60, 21}};
  for (model::KernelRow& kernel : profile.kernels) kernel.time_us = {1};
  const std::string svg = svg_of(profile);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, HasSubstr(">60<"));
}

TEST(ProfileVerification, NamesRisesAndGaps) {
  const Verification gap = verify(some_profile(), 0.1);
  EXPECT_FALSE(gap.good);
  EXPECT_THAT(gap.text, HasSubstr("kernel 1 (bbb"));
  model::ProfileDocument profile = some_profile();
  profile.kernels[1].time_us = {20, 23};
  const Verification rise = verify(profile, 0.1);
  EXPECT_FALSE(rise.good);
  EXPECT_THAT(rise.text, HasSubstr("takes 15.0 % longer on 60 CUs than on 15: 23.00 us, 20.00 us"));
  const Verification tolerated = verify(profile, 0.2);
  EXPECT_TRUE(tolerated.good);
  EXPECT_THAT(tolerated.text, HasSubstr("1 of 2 kernels rise by at most 15.0 %"));
  profile.kernels[1].time_us = {20, 13};
  EXPECT_EQ(verify(profile, 0.1).text, "good\n");
}

}  // namespace
}  // namespace eclip::profile
