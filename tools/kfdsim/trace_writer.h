// What the simulated GPU did, as a Chrome/Perfetto trace (chrome://tracing, ui.perfetto.dev).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/model/device.h"
#include "ipc/result.h"

namespace eclip::kfdsim {

/// One packet that was executed, in device time.
struct TracedPacket {
  pid_t pid;
  std::string_view command;
  std::uint32_t queue;
  std::string_view name;
  std::string_view mask;  ///< HSA_CU_MASK list
  std::uint64_t workgroups;
  model::DeviceTime start;
  model::DeviceTime end;
};

/// Writes as packets complete; close() or the destructor makes it a complete JSON document.
class TraceWriter {
 public:
  /// `gpu` labels the document; the word "simulated" is added.
  static Result<TraceWriter> create(const std::filesystem::path& file, std::string_view gpu);
  TraceWriter(TraceWriter&&) noexcept = default;
  TraceWriter& operator=(TraceWriter&&) = delete;
  ~TraceWriter();

  void add(const TracedPacket& packet);
  /// Errors of all writes so far, disk full for example, are reported here.
  Result<void> close();

 private:
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  TraceWriter(std::unique_ptr<std::FILE, FileCloser> file, std::filesystem::path path)
      : file_(std::move(file)), path_(std::move(path)) {}
  void name_rows(const TracedPacket& packet);
  void write(std::string_view text);

  std::unique_ptr<std::FILE, FileCloser> file_;
  std::filesystem::path path_;
  std::set<std::pair<pid_t, std::uint32_t>> named_;
  bool first_ = true;
};

}  // namespace eclip::kfdsim
