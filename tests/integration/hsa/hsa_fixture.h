// Base of the tests on the HSA runtime: each has a runtime of its own, inside kfdsim.
#pragma once

#include <cstdlib>
#include <optional>

#include "tests/integration/hsa/hsa_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {

class InsideHsa : public InsideKfdsim {
 protected:
  void SetUp() override {
    InsideKfdsim::SetUp();
    if (!IsSkipped()) hsa_.emplace();
  }
  void TearDown() override { hsa_.reset(); }
  [[nodiscard]] const Hsa& hsa() const { return *hsa_; }

 private:
  std::optional<Hsa> hsa_;
};

}  // namespace eclip::test
