// A whole file in memory.
#pragma once

#include <filesystem>
#include <string>

#include "ipc/result.h"

namespace eclip {

/// The bytes of a regular file. Errors: the system's; Errc::invalid_argument for a directory.
Result<std::string> read_file(const std::filesystem::path& file);

}  // namespace eclip
