// Directories of pinned BPF objects: what lives on without the process that made it.
#pragma once

#include <filesystem>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::bpf {

// Errors: the system's, and Errc::unsupported where the directory's parent is on no BPF file
// system.

/// Makes the directory for root alone if it is not there, and locks it: one process at a time
/// installs or removes. The lock lasts as long as the result.
Result<UniqueFd> make_pin_directory(const std::filesystem::path& directory);
Result<UniqueFd> lock_pin_directory(const std::filesystem::path& directory);
/// Removes what is in it, links (link_*) first: programs without maps would be worse than none.
Result<void> remove_pins(const std::filesystem::path& directory);
/// Removes the directory too; whether anything was in it.
Result<bool> remove_pin_directory(const std::filesystem::path& directory);

/// libbpf says nothing by itself, since what goes wrong is in returned errors; with
/// LIBBPF_LOG_LEVEL in the environment it says all.
void quiet_libbpf();

}  // namespace eclip::bpf
