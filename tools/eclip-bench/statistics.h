// The few statistics that reports need.
#pragma once

#include <span>
#include <vector>

namespace eclip::bench {

/// The value below which `share` (0 .. 1) of the values lie, interpolated; 0 for no values.
double quantile(std::vector<double> values, double share);

/// Spearman's rank correlation, ties at their mean rank. NaN when either list is constant or they
/// have fewer than two values.
double rank_correlation(std::span<const double> left, std::span<const double> right);

}  // namespace eclip::bench
