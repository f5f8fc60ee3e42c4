// The profile reader: every profile that is shipped, and every way in which one can be broken.
#include "daemon/model/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace eclip::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::HasSubstr;

std::vector<fs::path> shipped_profiles() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(ECLIP_DATA_DIR) / "profiles"))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string contents(const fs::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

/// Writes broken profiles to a file of this test's own.
class ProfileErrors : public ::testing::Test {
 protected:
  ~ProfileErrors() override { fs::remove(file_); }

  Result<Profile> load(const std::string& text) {
    std::ofstream(file_) << text;
    return load_profile(file_);
  }
  /// The message for a profile that is right but for what `spoil` did to it.
  template <class Spoil>
  std::string message_after(Spoil spoil) {
    Json json = Json::parse(contents(fs::path(ECLIP_DATA_DIR) / "profiles/alexnet-b1.h100.json"));
    spoil(json);
    const auto profile = load(json.dump());
    if (profile) return "no error";
    EXPECT_THAT(profile.error().message(), HasSubstr(file_.string()));
    return profile.error().message();
  }

  fs::path file_ =
      fs::temp_directory_path() / ("eclip-profile-" + std::to_string(::getpid()) + ".json");
};

TEST(Profile, AllShippedProfilesLoad) {
  const auto files = shipped_profiles();
  ASSERT_EQ(files.size(), 20U);
  for (const fs::path& file : files) {
    const auto profile = load_profile(file);
    ASSERT_TRUE(profile) << profile.error().message();
    EXPECT_EQ(file.filename().string(),
              profile->model + "-b" + std::to_string(profile->batch) + ".h100.json");
    EXPECT_EQ(profile->device_compute_units, 132U);
    EXPECT_EQ(profile->cu_counts.size(), 8U);
    EXPECT_EQ(profile->cu_counts.back(), 132U);
    // The kernels are most of the request.
    double sum_us = 0;
    for (const ProfiledKernel& kernel : profile->kernels) sum_us += kernel.kernel.time_us(132);
    EXPECT_LT(sum_us, profile->request_us_unmasked) << file;
    EXPECT_GT(sum_us, profile->request_us_unmasked * 0.75) << file;
  }
}

TEST(Profile, ReadsEveryField) {
  const auto profile = load_profile(fs::path(ECLIP_DATA_DIR) / "profiles/densenet201-b8.h100.json");
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_EQ(profile->model, "densenet201");
  EXPECT_EQ(profile->batch, 8U);
  EXPECT_EQ(profile->device_name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(profile->request_us_unmasked, 11450.6);
  EXPECT_EQ(profile->request_us_at_cu_counts.at(64), 13746.8);
  ASSERT_EQ(profile->kernels.size(), 710U);
  const ProfiledKernel& first = profile->kernels[0];
  EXPECT_THAT(first.name, HasSubstr("implicit_convolve_sgemm"));
  EXPECT_EQ(first.kernel.shape().workgroups, 6272U);
  EXPECT_EQ(first.kernel.shape().workgroup_size, 64U);
  EXPECT_EQ(first.kernel.shape().registers_per_thread, 64U);
  EXPECT_EQ(first.kernel.shape().local_memory_bytes, 0U);
  EXPECT_EQ(first.kernel.time_us(16), 749.52);
}

TEST_F(ProfileErrors, AFileThatIsNotThere) {
  const auto profile = load_profile("/nonexistent/profile.json");
  ASSERT_FALSE(profile);
  EXPECT_EQ(profile.error().code, std::errc::no_such_file_or_directory);
  EXPECT_THAT(profile.error().message(), HasSubstr("/nonexistent/profile.json"));
}

TEST_F(ProfileErrors, ATruncatedFileIsAnErrorAtEveryLength) {
  const std::string whole = contents(fs::path(ECLIP_DATA_DIR) / "profiles/alexnet-b1.h100.json");
  const std::size_t end = whole.find_last_of('}');
  for (std::size_t length = 0; length <= end; length += length < 400 ? 1 : 7) {
    const auto profile = load(whole.substr(0, length));
    ASSERT_FALSE(profile) << length;
    EXPECT_THAT(profile.error().message(), HasSubstr("not complete JSON"));
  }
  EXPECT_TRUE(load(whole.substr(0, end + 1)));
}

TEST_F(ProfileErrors, AnyMissingKeyIsNamed) {
  for (const char* key : {"schema", "model", "batch", "device", "cu_counts", "request_us_unmasked",
                          "request_us_at_cu_counts", "kernel_names", "columns", "kernels"})
    EXPECT_THAT(message_after([key](Json& json) { json.erase(key); }),
                HasSubstr("'" + std::string(key) + "' is missing"));
}

TEST_F(ProfileErrors, AnyKeyOfAWrongTypeIsAnError) {
  for (const char* key : {"schema", "model", "batch", "device", "cu_counts", "request_us_unmasked",
                          "request_us_at_cu_counts", "kernel_names", "columns", "kernels"})
    for (const Json& wrong : {Json(nullptr), Json(-1), Json::array({Json::object()}), Json("x")}) {
      if (wrong == "x" && std::string(key) == "model") continue;
      EXPECT_NE(message_after([&](Json& json) { json[key] = wrong; }), "no error")
          << key << " = " << wrong;
    }
}

TEST_F(ProfileErrors, AnotherSchemaIsNamed) {
  EXPECT_THAT(message_after([](Json& json) { json["schema"] = "eclip.profile/2"; }),
              HasSubstr("'eclip.profile/2', not 'eclip.profile/1'"));
}

TEST_F(ProfileErrors, AnotherColumnIsNamed) {
  EXPECT_THAT(message_after([](Json& json) { json["columns"][2] = "threads"; }),
              HasSubstr("column 2 must be 'workgroup_size'"));
  EXPECT_THAT(message_after([](Json& json) { json["columns"].erase(5); }),
              HasSubstr("column 5 must be 'time_us_at_cu_counts'"));
  EXPECT_THAT(message_after([](Json& json) { json["columns"].push_back("more"); }),
              HasSubstr("7 columns"));
}

TEST_F(ProfileErrors, ARowIsNamedByItsIndex) {
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][3].erase(1); }),
              HasSubstr("kernel 3: a row must have 6 columns"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][4][0] = 99; }),
              HasSubstr("kernel 4: name_index 99"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][5][1] = -2; }),
              HasSubstr("kernel 5: workgroups"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][5][2] = 1.5; }),
              HasSubstr("kernel 5: workgroup_size"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][6] = "kernel"; }),
              HasSubstr("kernel 6"));
}

TEST_F(ProfileErrors, TimesMustMatchTheCuCounts) {
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][7][5].erase(0); }),
              HasSubstr("kernel 7: it must have 8 times"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][7][5][2] = 0; }),
              HasSubstr("kernel 7: time 2 must be a positive time"));
  EXPECT_THAT(message_after([](Json& json) { json["kernels"][7][5][2] = nullptr; }),
              HasSubstr("kernel 7: time 2"));
  EXPECT_THAT(message_after([](Json& json) { json["cu_counts"][1] = 8; }),
              HasSubstr("'cu_counts' must be in ascending order"));
}

TEST_F(ProfileErrors, NoKernels) {
  EXPECT_THAT(message_after([](Json& json) { json["kernels"] = Json::array(); }),
              HasSubstr("'kernels' must be a list that is not empty"));
}

TEST_F(ProfileErrors, ARequestTimeForNoCount) {
  EXPECT_THAT(message_after([](Json& json) { json["request_us_at_cu_counts"]["many"] = 1.0; }),
              HasSubstr("'many'"));
}

TEST_F(ProfileErrors, KernelsThatStayTogetherAreRead) {
  Json json = Json::parse(contents(fs::path(ECLIP_DATA_DIR) / "profiles/alexnet-b1.h100.json"));
  json["uniform"] = true;
  json["stay_together"] = {{0, 2}, {5, 5}};
  const auto profile = load(json.dump());
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_TRUE(profile->uniform);
  ASSERT_EQ(profile->stay_together.size(), 2U);
  EXPECT_EQ(profile->stay_together[0].first, 0U);
  EXPECT_EQ(profile->stay_together[0].last, 2U);
}

TEST_F(ProfileErrors, KernelsThatStayTogetherAreInTheRequest) {
  EXPECT_THAT(message_after([](Json& json) { json["uniform"] = 1; }),
              HasSubstr("key 'uniform' must be true or false"));
  EXPECT_THAT(message_after([](Json& json) {
                json["stay_together"] = {{0, 1}, {2, 100000}};
              }),
              HasSubstr("range 1 of 'stay_together' is [2, 100000]; the kernels are 0 to"));
  EXPECT_THAT(message_after([](Json& json) {
                json["stay_together"] = {{3, 2}};
              }),
              HasSubstr("first is before last"));
  EXPECT_THAT(message_after([](Json& json) {
                json["stay_together"] = {{1, 2, 3}};
              }),
              HasSubstr("must be [first kernel, last kernel]"));
}

}  // namespace
}  // namespace eclip::model
