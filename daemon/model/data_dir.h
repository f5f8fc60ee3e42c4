// Where ECLIP's data is: descriptions of GPUs, profiles, measurements.
#pragma once

#include <filesystem>

namespace eclip::model {

/// Beside an installed ECLIP, else in the source tree. Has gpus/ and profiles/.
std::filesystem::path default_data_dir();

}  // namespace eclip::model
