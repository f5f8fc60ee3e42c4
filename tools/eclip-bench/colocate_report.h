// Co-location results for people and programs. All figures are simulated, and say so.
#pragma once

#include <string>

#include "tools/eclip-bench/colocate.h"

namespace eclip::bench {

/// Geometric means, targets, and the cells where ECLIP loses; with `detail` every cell.
std::string colocate_text(const Colocation& colocation, const ColocateOptions& options,
                          bool detail);
/// Schema eclip.colocate/1.
std::string colocate_json(const Colocation& colocation, const ColocateOptions& options);

}  // namespace eclip::bench
