// How long a change of queues stalls the device.
#pragma once

#include <cstdint>
#include <random>

#include "daemon/model/device.h"

namespace eclip::model {

/// Creating or destroying a queue and changing its CU mask make the driver take all queues off the
/// GPU and put them back (gfx9: the run list is unmapped and mapped again, running waves are
/// saved). The time is log-normal with the median and the 99th percentile of the GPU's description:
/// mostly short, now and then long. The same seed gives the same times.
class QueueChangeStalls {
 public:
  QueueChangeStalls(const GpuDescription& gpu, std::uint64_t seed);
  DeviceTime next();

 private:
  double log_median_;  // of microseconds
  double deviation_;   // of the logarithm
  bool none_;
  std::mt19937_64 random_;
};

}  // namespace eclip::model
