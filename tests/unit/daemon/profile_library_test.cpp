#include "daemon/profile_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "daemon/model/data_dir.h"
#include "tests/fake/temporary_directory.h"

namespace eclip::daemon {
namespace {

using ::testing::HasSubstr;

class ProfileLibraryTest : public ::testing::Test {
 protected:
  /// A copy of a profile under another name.
  void put(const std::string& profile, const std::string& file) const {
    std::filesystem::copy_file(model::default_data_dir() / "profiles" / (profile + ".h100.json"),
                               directory_.path() / file,
                               std::filesystem::copy_options::overwrite_existing);
  }
  std::size_t kernels(const std::string& name) {
    const auto found = library_.find(name);
    return found ? found->kernels.size() : 0;
  }

  test::TemporaryDirectory directory_;
  ProfileLibrary library_{{"/nonexistent", directory_.path()}, "mi50"};
};

TEST_F(ProfileLibraryTest, PrefersTheNameThenTheGpuThenAnyOther) {
  put("alexnet-b1", "net.zzz.json");
  put("vgg19-b1", "net.aaa.json");
  const std::size_t of_another_gpu = kernels("net");
  put("shufflenet_v2_x1_0-b1", "net.mi50.json");
  const std::size_t of_the_gpu = kernels("net");
  put("resnet152-b1", "net.json");
  const std::size_t exact = kernels("net");
  EXPECT_GT(of_another_gpu, 0U);
  EXPECT_NE(of_another_gpu, of_the_gpu);
  EXPECT_NE(of_the_gpu, exact);
  EXPECT_NE(kernels("net.zzz"), of_another_gpu) << "a name may say the GPU";
  EXPECT_GT(kernels("net.zzz"), 0U);
}

TEST_F(ProfileLibraryTest, GivesTheSameKernelsUntilTheFileChanges) {
  put("alexnet-b1", "net.json");
  const auto first = library_.find("net");
  EXPECT_EQ(library_.find("net")->kernels, first->kernels);
  put("vgg19-b1", "net.json");
  std::filesystem::last_write_time(
      directory_.path() / "net.json",
      std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_NE(library_.find("net")->kernels, first->kernels);
}

TEST_F(ProfileLibraryTest, SaysWhatIsMissingAndWhere) {
  const auto missing = library_.find("net");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::not_found);
  EXPECT_THAT(missing.error().message(), HasSubstr("/nonexistent, " + directory_.path().string()));
  std::ofstream(directory_.path() / "bad.json") << "{}";
  EXPECT_THAT(library_.find("bad").error().message(), HasSubstr("bad.json"));
}

TEST_F(ProfileLibraryTest, NamesThatLeadElsewhereAreRefused) {
  for (const char* name : {"", "../net", "/etc/passwd", ".net", "a b", "a\nb", "net/../x"}) {
    EXPECT_FALSE(is_profile_name(name)) << name;
    EXPECT_EQ(library_.find(name).error().code, Errc::invalid_argument) << name;
  }
  EXPECT_TRUE(is_profile_name("densenet201-b8.h100"));
}

}  // namespace
}  // namespace eclip::daemon
