// Lines for the person who runs kfdsim.
#pragma once

#include <string_view>

namespace eclip::kfdsim {

/// Writes "kfdsim: TEXT" as a line on standard error. That it is closed or full stops nothing.
void report(std::string_view text);

}  // namespace eclip::kfdsim
