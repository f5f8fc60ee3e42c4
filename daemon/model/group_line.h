// The kernels at one group of compute units, and what each gets of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "daemon/model/residency.h"

namespace eclip::model {

/// Kernels whose masks contain the group, in order of arrival. Each takes what earlier ones leave,
/// so those that hold something come first, and a change concerns nobody before it and nobody
/// behind the kernel that takes the rest: on full CUs the kernels that wait cost nothing.
class GroupLine {
 public:
  /// join, leave and changed say whether the group now has to be dealt out and had not before.
  /// `index` is that of the group in the kernel's mask.
  bool join(Residency& kernel, std::size_t index);
  bool leave(const Residency& kernel);
  /// The kernel wants other slots than before.
  bool changed(const Residency& kernel) { return deal_from(place_of(kernel)); }
  /// Everything is to be dealt out, whoever holds something.
  void deal_all();

  /// Gives the group's `cus` to those who want them. Appends the kernels to which that may make a
  /// difference to `touched`, unless they are.
  void deal(double cus, std::vector<Residency*>& touched);

  /// What the kernels load the group's throughput with.
  [[nodiscard]] double load() const { return load_; }

 private:
  struct Left {
    double free = 1;  ///< slots that no kernel holds
    double load = 0;  ///< on the throughput
  };
  struct Place {
    std::uint64_t arrival;  ///< the kernel's, which is looked for often
    Residency* kernel;
    std::size_t index;
    Left left;  ///< when the kernel and those before it have taken theirs
  };
  static constexpr std::size_t nowhere = -1;

  [[nodiscard]] std::size_t place_of(const Residency& kernel) const;
  [[nodiscard]] Left left_before(std::size_t place) const {
    return place == 0 ? Left{} : places_[place - 1].left;
  }
  bool deal_from(std::size_t place);

  std::vector<Place> places_;
  std::size_t holders_ = 0;  // places that may hold something; all before the others
  std::size_t deal_from_ = nowhere;
  double load_ = 0;
};

}  // namespace eclip::model
