// kfdsim: runs a command on a machine with a simulated AMD GPU. See docs/kfdsim.md.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/command.h"
#include "tools/kfdsim/fuse_connection.h"
#include "tools/kfdsim/mount_namespace.h"
#include "tools/kfdsim/options.h"
#include "tools/kfdsim/report.h"
#include "tools/kfdsim/simulator.h"
#include "tools/kfdsim/topology_files.h"
#include "tools/kfdsim/trace_writer.h"

namespace {

using namespace eclip;
using namespace eclip::kfdsim;

/// The namespace, and in it the mounted connection.
Result<FuseConnection> build_machine(const model::GpuDescription& gpu,
                                     std::optional<Mapping> mapping) {
  std::error_code error;
  if (std::filesystem::exists(fuse_directory, error)) {
    return fail(Errc::already_in_use,
                "there is a simulated GPU already: run COMMAND without another kfdsim");
  }
  if (auto entered = enter_private_namespace(); !entered) return tl::unexpected(entered.error());
  // Before /dev changes: what is missing there is to be named as the user knows it.
  auto device = FuseConnection::open_device("/dev/fuse");
  if (!device) return tl::unexpected(device.error());
  if (auto done = replace_dev(); !done) return tl::unexpected(done.error());
  auto connection = FuseConnection::mount(std::move(*device), fuse_directory, mapping);
  if (!connection) return connection;
  const auto kfd = kfd_files(gpu, host_properties());
  const auto pci_device = pci_device_files(gpu);
  if (auto done = replace_sys({kfd, pci_device}); !done) return tl::unexpected(done.error());
  auto named = replace_file("/usr/share/libdrm/amdgpu.ids", amdgpu_ids(gpu));
  if (!named) return tl::unexpected(named.error());
  return connection;
}

/// What COMMAND's environment has besides kfdsim's own.
void set_environment() {
  // Without this, libhsakmt gives the GPU private memory of the client, in which a simulator can
  // not do atomic operations.
  ::setenv("HSA_USERPTR_FOR_PAGED_MEM", "0", 0);
  const char* path = std::getenv("PATH");
  const std::string value = fmt::format("{}:{}", program_directory,
                                        path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  ::setenv("PATH", value.c_str(), 1);
}

std::string counted(std::uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

/// Names the most frequent ones.
std::string kernels_without_effect(const std::map<std::string, std::uint64_t>& dispatches) {
  constexpr std::size_t named = 3;
  std::vector<std::pair<std::uint64_t, std::string>> by_count;
  std::uint64_t total = 0;
  for (const auto& [name, count] : dispatches) {
    by_count.emplace_back(count, name);
    total += count;
  }
  std::sort(by_count.rbegin(), by_count.rend());
  std::string names;
  for (std::size_t i = 0; i < by_count.size() && i < named; ++i) {
    names += fmt::format("{}{} of {}", i == 0 ? "" : ", ", by_count[i].first, by_count[i].second);
  }
  if (by_count.size() > named) names += fmt::format(", and {} more", by_count.size() - named);
  return fmt::format("{} of kernels without a shadow computed nothing (--shadow): {}",
                     counted(total, "dispatch", "dispatches"), names);
}

void print_summary(const Summary& summary, const model::GpuDescription& gpu) {
  report(fmt::format("simulated {}: {:.6f} s of device time, {}, {:.3f} J, {}", gpu.name,
                     summary.device_seconds, counted(summary.packets, "packet", "packets"),
                     summary.energy_joules, counted(summary.ioctls, "KFD ioctl", "KFD ioctls")));
  if (!summary.without_effect.empty()) report(kernels_without_effect(summary.without_effect));
  if (summary.estimated_times != 0) {
    report(fmt::format("{} took an estimated time, not a measured one (--profile)",
                       counted(summary.estimated_times, "dispatch", "dispatches")));
  }
  if (!summary.faults.empty()) report(summary.faults);
}

Result<KnownKernels> known_kernels(const Options& options) {
  KnownKernels known;
  for (const auto& library : options.shadows) {
    if (auto loaded = known.shadows.load(library); !loaded) return tl::unexpected(loaded.error());
  }
  for (const auto& profile : options.profiles) {
    if (auto loaded = known.times.load(profile); !loaded) return tl::unexpected(loaded.error());
  }
  return known;
}

Result<int> run(const Options& options) {
  if (auto checked = check_time_scale(options.time_scale); !checked) {
    return tl::unexpected(checked.error());
  }
  auto gpu = find_gpu(options.gpu, data_directories(options.data));
  if (!gpu) return tl::unexpected(gpu.error());
  auto known = known_kernels(options);
  if (!known) return tl::unexpected(known.error());
  std::optional<TraceWriter> trace;
  if (options.trace) {
    auto created = TraceWriter::create(*options.trace, gpu->name);
    if (!created) return tl::unexpected(created.error());
    trace.emplace(std::move(*created));
  }
  auto connection = build_machine(*gpu, options.mapping);
  if (!connection) return tl::unexpected(connection.error());

  if (connection->mapping() == Mapping::page_cache) survive_lost_pages();
  block_command_signals();
  Simulator simulator(std::move(*connection), *gpu, options.time_scale, std::move(*known),
                      trace ? &*trace : nullptr, FaultInjector(options.faults, options.seed));
  if (auto started = simulator.start(); !started) return tl::unexpected(started.error());
  set_environment();
  auto status = run_command(options.command);
  const Summary summary = simulator.stop();
  if (status && !options.quiet) print_summary(summary, *gpu);
  if (trace) {
    if (auto closed = trace->close(); !closed) return tl::unexpected(closed.error());
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const ParsedCommandLine parsed = parse_command_line(argc, argv);
  if (!parsed.options) return parsed.exit_status;
  const auto status = run(*parsed.options);
  if (status) return *status;
  report(status.error().message());
  return exit_own_failure;
}
