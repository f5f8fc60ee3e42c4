#include "daemon/energy_ledger.h"

#include <gtest/gtest.h>

#include <array>

namespace eclip::daemon {
namespace {

using Use = EnergyLedger::Use;
constexpr WorkerId emil{1};
constexpr WorkerId fay{2};

TEST(EnergyLedger, AnIntervalsEnergyIsSharedByCusTimesDeviceTime) {
  EnergyLedger ledger;
  ledger.account(1000, {});
  // 15 CUs for 300 ns against 30 CUs for 50 ns: 3 to 1.
  ledger.account(1400, std::array{Use{LeaseId{1}, emil, 15, 300}, Use{LeaseId{2}, fay, 30, 50}});
  EXPECT_EQ(ledger.energy_uj(emil), 300U);
  EXPECT_EQ(ledger.energy_uj(fay), 100U);
  // Only what was added since counts; emil was idle.
  ledger.account(1500, std::array{Use{LeaseId{1}, emil, 15, 300}, Use{LeaseId{2}, fay, 30, 60}});
  EXPECT_EQ(ledger.energy_uj(emil), 300U);
  EXPECT_EQ(ledger.energy_uj(fay), 200U);
}

TEST(EnergyLedger, IdleEnergyIsNobodysAndTheFirstLookIsTheBeginning) {
  EnergyLedger ledger;
  ledger.account(5000, std::array{Use{LeaseId{1}, emil, 15, 300}});
  ledger.account(6000, std::array{Use{LeaseId{1}, emil, 15, 300}});
  EXPECT_EQ(ledger.energy_uj(emil), 0U);
  ledger.account(6100, std::array{Use{LeaseId{1}, emil, 15, 301}});
  EXPECT_EQ(ledger.energy_uj(emil), 100U);
}

TEST(EnergyLedger, ACounterThatStartsAnewCountsFromThere) {
  EnergyLedger ledger;
  ledger.account(5000, {});
  ledger.account(10, std::array{Use{LeaseId{1}, emil, 15, 300}});
  EXPECT_EQ(ledger.energy_uj(emil), 0U);
  ledger.account(30, std::array{Use{LeaseId{1}, emil, 15, 400}});
  EXPECT_EQ(ledger.energy_uj(emil), 20U);
}

TEST(EnergyLedger, ForgetsWhoHasLeft) {
  EnergyLedger ledger;
  ledger.account(0, {});
  ledger.account(100, std::array{Use{LeaseId{1}, emil, 15, 300}});
  ledger.forget(LeaseId{1});
  ledger.forget(emil);
  EXPECT_EQ(ledger.energy_uj(emil), 0U);
}

}  // namespace
}  // namespace eclip::daemon
