// Profiles as files: what is written is read again, and bad rows are named, whatever they are.
#include "daemon/model/profile_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "daemon/model/profile.h"
#include "daemon/model/profile_merge.h"
#include "daemon/model/profile_quality.h"

namespace eclip::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::uint32_t up_to(std::mt19937& random, std::uint32_t limit) {
  return std::uniform_int_distribution<std::uint32_t>(0, limit)(random);
}

ProfileDocument random_document(std::mt19937& random) {
  ProfileDocument document{.model = "m\"odel \\ é" + std::to_string(random() % 9),
                           .batch = 1 + up_to(random, 63),
                           .precision = random() % 2 == 0 ? "" : "fp16",
                           .device_name = "GPU",
                           .device_compute_units = 60};
  if (random() % 2 == 0) document.note = "line\nbreak";
  for (std::uint32_t cus = 1 + up_to(random, 20); cus <= 60; cus += 1 + up_to(random, 20))
    document.cu_counts.push_back(cus);
  const bool with_spread = random() % 2 == 0;
  std::lognormal_distribution<double> time(2, 3);
  for (std::size_t i = 0; i < document.cu_counts.size(); ++i) {
    if (with_spread) document.samples.push_back(up_to(random, 100));
    document.request_us_at_cu_counts[document.cu_counts[i]] = time(random);
  }
  document.request_us_unmasked = time(random);
  for (std::uint32_t k = up_to(random, 20) + 1; k > 0; --k) {
    KernelRow& kernel = document.kernels.emplace_back();
    kernel.name = "kernel<" + std::to_string(up_to(random, 5)) + ">";
    kernel.shape = {.workgroups = up_to(random, 0xFFFFFFFF),
                    .workgroup_size = up_to(random, 1024),
                    .registers_per_thread = up_to(random, 256),
                    .local_memory_bytes = up_to(random, 65536)};
    for (std::size_t i = 0; i < document.cu_counts.size(); ++i) {
      kernel.time_us.push_back(random() % 20 == 0 ? 0 : time(random));
      if (with_spread) kernel.iqr_us.push_back(random() % 4 == 0 ? 0 : time(random));
    }
  }
  return document;
}

TEST(ProfileDocument, WhatIsWrittenIsReadAgain) {
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    const ProfileDocument document = random_document(random);
    const auto read = parse_profile_document(to_json(document), "text");
    ASSERT_TRUE(read) << read.error().message() << "\n" << to_json(document);
    ASSERT_EQ(*read, document) << to_json(document);
  }
}

TEST(ProfileDocument, NamesThatAreNoUtf8AreWrittenAllTheSame) {
  std::mt19937 random(1);
  ProfileDocument document = random_document(random);
  document.kernels[0].name = "\xFF\xC0kernel";
  document.model = "\x80";
  EXPECT_TRUE(parse_profile_document(to_json(document), "text"));
}

/// Puts something wrong into one row and returns what it did.
std::string spoil(nlohmann::json& row, std::mt19937& random) {
  using Json = nlohmann::json;
  const std::vector<Json> wrong{Json(-1),      Json(1.5),      Json("text"), Json(true),
                                Json::array(), Json::object(), Json(-2.5e9), Json(5000000000U),
                                Json({1, 2}),  Json("nan")};
  const Json value = wrong[random() % wrong.size()];
  switch (random() % 4) {
    case 0:
      row = value;
      break;
    case 1:
      row.erase(random() % row.size());
      break;
    case 2:
      row[random() % 5] = value;
      break;
    default:
      // A time may be any positive number, also 5e9.
      row[5][random() % row[5].size()] =
          value.is_number() && value.get<double>() > 0 ? Json(-1) : value;
  }
  return row.dump();
}

TEST(ProfileDocument, ABadRowIsNamedWhateverIsWrongWithIt) {
  std::mt19937 random(2);
  for (int i = 0; i < 300; ++i) {
    ProfileDocument document = random_document(random);
    nlohmann::json json = nlohmann::json::parse(to_json(document));
    json.erase("iqr_us_at_cu_counts");
    const std::size_t bad = random() % json["kernels"].size();
    const std::string row = spoil(json["kernels"][bad], random);
    const auto read = parse_profile_document(json.dump(), "text");
    ASSERT_FALSE(read) << row;
    EXPECT_THAT(read.error().message(), HasSubstr("text: kernel " + std::to_string(bad) + ": "))
        << row;
    EXPECT_THAT(read.error().message(), HasSubstr("correct the row")) << row;
  }
}

TEST(ProfileDocument, AMillionRandomBytesAreNoProfileAndNoCrash) {
  std::mt19937 random(3);
  const ProfileDocument document = random_document(random);
  const std::string good = to_json(document);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    for (std::uint32_t k = 1 + up_to(random, 5); k > 0; --k)
      bad[random() % bad.size()] = static_cast<char>(random());
    const auto read = parse_profile_document(bad, "text");
    if (!read) {
      EXPECT_THAT(read.error().message(), HasSubstr("text: "));
    }
    const auto profile = parse_profile(bad, "text");
    EXPECT_TRUE(read || !profile) << "what is no document is no profile";
  }
}

ProfileDocument small() {
  return {.model = "m",
          .batch = 8,
          .precision = {},
          .device_name = "GPU",
          .device_compute_units = 60,
          .cu_counts = {15, 60},
          .samples = {4, 4},
          .request_us_at_cu_counts = {{15, 50}, {60, 20}},
          .request_us_unmasked = 19,
          .note = {},
          .kernels = {{"a", {.workgroups = 10}, {30, 10}, {1, 2}},
                      {"b", {.workgroups = 20}, {20, 8}, {2, 4}}}};
}

TEST(ProfileDocument, OneKernelIsAProfile) {
  ProfileDocument document = small();
  document.kernels.resize(1);
  const auto profile = parse_profile(to_json(document), "text");
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_EQ(profile->kernels.size(), 1U);
}

TEST(ProfileDocument, NoKernelIsNone) {
  ProfileDocument document = small();
  document.kernels.clear();
  const auto profile = parse_profile(to_json(document), "text");
  ASSERT_FALSE(profile);
  EXPECT_THAT(profile.error().message(), HasSubstr("must be a list that is not empty"));
}

TEST(ProfileDocument, ATimeThatWasNotMeasuredIsADocumentAndNoProfile) {
  ProfileDocument document = small();
  document.kernels[1].time_us[0] = 0;
  const auto read = parse_profile_document(to_json(document), "text");
  ASSERT_TRUE(read) << read.error().message();
  const auto profile = make_profile(*read, "text");
  ASSERT_FALSE(profile);
  EXPECT_THAT(profile.error().message(), HasSubstr("text: kernel 1: time 0 must be a positive"));
  EXPECT_THAT(gaps(document), ElementsAre("kernel 1 (b) has no time at 15 CUs"));
}

TEST(ProfileDocument, ANonMonotoneKernelIsReadAndMadeMonotoneOnlyInTheProfile) {
  ProfileDocument document = small();
  document.kernels[0].time_us = {10, 12};
  const auto read = parse_profile_document(to_json(document), "text");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->kernels[0].time_us, (std::vector<double>{10, 12}));
  const auto profile = make_profile(*read, "text");
  ASSERT_TRUE(profile);
  EXPECT_NEAR(profile->kernels[0].kernel.time_us(15), std::sqrt(120), 1e-9);
  EXPECT_NEAR(profile->kernels[0].kernel.time_us(60), std::sqrt(120), 1e-9);
}

TEST(ProfileDocument, BadSpreadsAndSamplesAreNamed) {
  const auto message = [](const char* key, const nlohmann::json& value) {
    nlohmann::json json = nlohmann::json::parse(to_json(small()));
    json[key] = value;
    const auto read = parse_profile_document(json.dump(), "text");
    return read ? std::string("no error") : read.error().message();
  };
  EXPECT_THAT(message("iqr_us_at_cu_counts", {{1, 2}}), HasSubstr("each of the 2 kernels"));
  EXPECT_THAT(message("iqr_us_at_cu_counts", {{1, 2}, {1}}), HasSubstr("kernel 1: "));
  EXPECT_THAT(message("iqr_us_at_cu_counts", {{1, -2}, {1, 1}}), HasSubstr("kernel 0: "));
  EXPECT_THAT(message("requests_at_cu_counts", {1}), HasSubstr("'requests_at_cu_counts'"));
  EXPECT_THAT(message("requests_at_cu_counts", {1, "x"}), HasSubstr("'requests_at_cu_counts'"));
}

TEST(ProfileQuality, TheLargestRiseOfEachKernelIsFound) {
  ProfileDocument document = small();
  document.cu_counts = {15, 30, 60};
  document.kernels[0].time_us = {10, 12, 11};
  document.kernels[1].time_us = {10, 5, 8};
  const auto found = rises(document, 0.1);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].kernel, 1U);
  EXPECT_EQ(found[0].from_cus, 30U);
  EXPECT_EQ(found[0].to_cus, 60U);
  EXPECT_NEAR(found[0].share(), 0.6, 1e-9);
  EXPECT_NEAR(found[1].share(), 0.2, 1e-9);
  EXPECT_EQ(rises(document, 0.3).size(), 1U);
}

TEST(ProfileQuality, GapsAreNamed) {
  ProfileDocument document = small();
  document.request_us_at_cu_counts.erase(15);
  document.device_compute_units = 64;
  EXPECT_THAT(gaps(document), ElementsAre("no time of a whole request at 15 CUs",
                                          "the largest count is 60 of the device's 64 CUs"));
  EXPECT_TRUE(gaps(small()).empty());
}

TEST(ProfileMerge, MoreCountsAndMoreRequests) {
  ProfileDocument other = small();
  other.cu_counts = {15, 30};
  other.samples = {12, 3};
  other.request_us_at_cu_counts = {{15, 54}, {30, 30}};
  other.kernels[0].time_us = {34, 18};
  other.kernels[0].iqr_us = {5, 1};
  const auto merged = merge_profiles(std::vector<NamedProfile>{{"a", small()}, {"b", other}});
  ASSERT_TRUE(merged) << merged.error().message();
  EXPECT_THAT(merged->cu_counts, ElementsAre(15, 30, 60));
  EXPECT_THAT(merged->samples, ElementsAre(16, 3, 4));
  EXPECT_THAT(merged->kernels[0].time_us, ElementsAre(33, 18, 10));
  EXPECT_THAT(merged->kernels[0].iqr_us, ElementsAre(4, 1, 2));
  EXPECT_EQ(merged->request_us_at_cu_counts.at(15), 53);
  EXPECT_TRUE(make_profile(*merged, "merged"));
}

TEST(ProfileMerge, ATimeThatOneLacksIsTheOthers) {
  ProfileDocument lacking = small();
  lacking.kernels[1].time_us[1] = 0;
  const auto merged = merge_profiles(std::vector<NamedProfile>{{"a", lacking}, {"b", small()}});
  ASSERT_TRUE(merged);
  EXPECT_EQ(merged->kernels[1].time_us[1], 8);
}

TEST(ProfileMerge, ConflictsAreNamed) {
  const auto message = [](const std::function<void(ProfileDocument&)>& change) {
    ProfileDocument other = small();
    change(other);
    const auto merged = merge_profiles(std::vector<NamedProfile>{{"a", small()}, {"b", other}});
    return merged ? std::string("no error") : merged.error().message();
  };
  EXPECT_THAT(message([](auto& d) { d.model = "n"; }), HasSubstr("b: the model is n, and m in a"));
  EXPECT_THAT(message([](auto& d) { d.batch = 1; }), HasSubstr("the batch is 1, and 8 in a"));
  EXPECT_THAT(message([](auto& d) { d.precision = "fp16"; }), HasSubstr("the precision"));
  EXPECT_THAT(message([](auto& d) { d.device_name = "MI50"; }), HasSubstr("the device is MI50"));
  EXPECT_THAT(message([](auto& d) { d.device_compute_units = 1; }), HasSubstr("number of CUs"));
  EXPECT_THAT(message([](auto& d) { d.kernels.pop_back(); }), HasSubstr("number of kernels is 1"));
  EXPECT_THAT(message([](auto& d) { d.kernels[1].name = "c"; }), HasSubstr("kernel 1 is 'c'"));
  EXPECT_THAT(message([](auto& d) { d.kernels[1].shape.workgroups = 3; }),
              HasSubstr("kernel 1 is 'b' (3 workgroups"));
  EXPECT_FALSE(merge_profiles({}));
}

}  // namespace
}  // namespace eclip::model
