// The model with measured profiles: whole requests, alone and together, against the H100.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "daemon/model/device.h"
#include "daemon/model/profile.h"

namespace eclip::model {
namespace {

namespace fs = std::filesystem;

class NoSignals final : public Host {
 public:
  std::int64_t signal_value(SignalAddress) override { return 0; }
  void packet_started(QueueId, const Packet&, DeviceTime) override {}
  void packet_completed(QueueId, const Packet& packet, DeviceTime, DeviceTime end) override {
    ended[packet.cookie] = end;
  }
  std::array<DeviceTime, 2> ended{};
};

GpuDescription h100() {
  return *load_gpu_description(fs::path(ECLIP_DATA_DIR) / "gpus/h100.toml");
}

Profile profile(const std::string& name) {
  return *load_profile(fs::path(ECLIP_DATA_DIR) / "profiles" / (name + ".h100.json"));
}

void submit_request(Device& device, QueueId queue, const Profile& profile, std::uint64_t cookie) {
  for (const ProfiledKernel& kernel : profile.kernels)
    device.submit(queue,
                  {.kind = PacketKind::dispatch,
                   .barrier = true,
                   .kernel = std::make_shared<const Kernel>(kernel.kernel),
                   .dependencies = {},
                   .cookie = cookie},
                  DeviceTime{});
}

double alone_us(const Profile& profile, std::uint32_t cus) {
  NoSignals host;
  Device device(h100(), host);
  CuMask mask(132);
  for (std::uint32_t cu = 0; cu < cus; ++cu) mask.insert(cu);
  submit_request(device, *device.create_queue(mask), profile, 0);
  device.advance(std::chrono::seconds(10));
  return static_cast<double>(host.ended[0].count()) / 1000;
}

TEST(CoLocation, ARequestAloneTakesAboutAsLongAsMeasured) {
  // Below a millisecond the host's part of a request is large, and it is not in the model.
  constexpr double host_us = 40;
  for (const auto& entry : fs::directory_iterator(fs::path(ECLIP_DATA_DIR) / "profiles")) {
    const auto loaded = load_profile(entry.path());
    ASSERT_TRUE(loaded) << loaded.error().message();
    const double predicted = alone_us(*loaded, 132);
    EXPECT_NEAR(predicted, loaded->request_us_unmasked - host_us / 2,
                0.04 * loaded->request_us_unmasked + host_us)
        << entry.path().filename();
  }
}

TEST(CoLocation, ARequestOnAQuarterOfTheGpuTakesAboutAsLongAsMeasured) {
  for (const char* name : {"densenet201-b8", "resnet152-b8", "vgg19-b8", "albert_base-b8"}) {
    const Profile measured = profile(name);
    const double expected = measured.request_us_at_cu_counts.at(32);
    EXPECT_NEAR(alone_us(measured, 32) / expected, 1, 0.03) << name;
  }
}

TEST(CoLocation, ASmallModelIsStarvedByALargeOneUnlessItHasCusOfItsOwn) {
  const Profile small = profile("shufflenet_v2_x1_0-b8");
  const Profile large = profile("vgg19-b8");
  const auto small_us = [&](const CuMask& small_mask, const CuMask& large_mask) {
    NoSignals host;
    Device device(h100(), host);
    const QueueId first = *device.create_queue(large_mask);
    const QueueId second = *device.create_queue(small_mask);
    for (int request = 0; request < 10; ++request) submit_request(device, first, large, 1);
    submit_request(device, second, small, 0);
    device.advance(std::chrono::seconds(10));
    return static_cast<double>(host.ended[0].count()) / 1000;
  };
  const CuMask full = CuMask::full(132);
  const double unmasked = small_us(full, full);
  const double confined = small_us(*CuMask::parse("0-31", 132), *CuMask::parse("32-131", 132));
  const double alone = alone_us(small, 32);
  EXPECT_GT(unmasked, 2 * alone);
  EXPECT_LT(confined, 1.1 * alone);
}

}  // namespace
}  // namespace eclip::model
