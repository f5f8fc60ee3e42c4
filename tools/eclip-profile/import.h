// eclip-profile import: traces of other profilers as a profile.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/request_pattern.h"
#include "ipc/result.h"

namespace eclip::profile {

/// FILE@CUS.
struct TraceFile {
  std::filesystem::path path;
  std::uint32_t cus = 0;
};
/// Errc::invalid_argument says what is wrong.
Result<TraceFile> parse_trace_file(std::string_view text);

enum class TraceFormat : std::uint8_t { rocprof, kineto };

struct ImportOptions {
  TraceFormat format = TraceFormat::rocprof;
  std::vector<TraceFile> files;
  std::string model;
  std::uint32_t batch = 1;
  std::string precision;
  std::string device_name;       ///< "": as the trace says, if it does
  std::uint32_t device_cus = 0;  ///< 0: likewise
  std::string only_gpu;          ///< the trace's name for the GPU to take; "": the only one
  model::MatchOptions match;
};

struct Imported {
  model::ProfileDocument profile;
  model::MatchReport report;
  std::vector<std::string> remarks;
};

/// Errors name file, line or event, and remedy.
Result<Imported> import_traces(const ImportOptions& options);

/// A trace with what else its file says. Kernels in order of their start.
struct ForeignTrace {
  model::Trace trace;
  std::string device_name;  ///< "": not stated
  std::uint32_t device_cus = 0;
};

/// CSV of rocprof (results.csv), rocprofv2 and rocprofv3 (kernel_trace.csv), told apart by their
/// columns.
Result<ForeignTrace> parse_rocprof(std::string_view text, const std::string& source,
                                   const std::string& only_gpu);
/// JSON of the Chrome trace format as Kineto (torch.profiler) writes it: events of the categories
/// kernel, gpu_memcpy and gpu_memset.
Result<ForeignTrace> parse_kineto(std::string_view text, const std::string& source,
                                  const std::string& only_gpu);

}  // namespace eclip::profile
