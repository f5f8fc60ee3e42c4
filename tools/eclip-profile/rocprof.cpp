#include <fmt/core.h>

#include <array>
#include <boost/tokenizer.hpp>
#include <charconv>
#include <optional>

#include "tools/eclip-profile/foreign_kernels.h"

namespace eclip::profile {
namespace {

using Fields = std::vector<std::string>;

/// Fields of a CSV line; a doubled quotation mark within quotes is dropped.
Fields split(std::string_view line) {
  using Separator = boost::escaped_list_separator<char>;
  const std::string text(line);
  const boost::tokenizer<Separator> fields(text, Separator("", ",", "\""));
  return {fields.begin(), fields.end()};
}

/// Where the columns stand that are needed; each has a name in every version of rocprof.
class Columns {
 public:
  explicit Columns(const Fields& header) : header_(header) {}

  [[nodiscard]] std::optional<std::size_t> find(
      std::initializer_list<std::string_view> names) const {
    for (std::size_t i = 0; i < header_.size(); ++i)
      for (const std::string_view name : names)
        if (header_[i] == name) return i;
    return std::nullopt;
  }

 private:
  Fields header_;
};

struct Layout {
  std::size_t name;
  std::size_t start;
  std::size_t end;
  std::vector<std::size_t> grid;       // work items: in all, or in x, y, z
  std::vector<std::size_t> workgroup;  // likewise
  std::optional<std::size_t> lds;
  std::optional<std::size_t> registers;
  std::optional<std::size_t> gpu;
};

Result<Layout> layout_of(const Fields& header, const std::string& source) {
  const Columns columns(header);
  const auto name = columns.find({"KernelName", "Kernel_Name"});
  const auto start = columns.find({"BeginNs", "Start_Timestamp"});
  const auto end = columns.find({"EndNs", "End_Timestamp"});
  Layout layout{};
  const auto sizes = [&](std::initializer_list<std::string_view> whole, const char* part) {
    std::vector<std::size_t> found;
    if (const auto one = columns.find(whole)) return std::vector{*one};
    for (const char* axis : {"_X", "_Y", "_Z"})
      if (const auto of_axis = columns.find({std::string(part) + axis})) found.push_back(*of_axis);
    return found;
  };
  layout.grid = sizes({"grd", "Grid_Size"}, "Grid_Size");
  layout.workgroup = sizes({"wgr", "Workgroup_Size"}, "Workgroup_Size");
  const char* missing = !name                      ? "KernelName or Kernel_Name"
                        : !start                   ? "BeginNs or Start_Timestamp"
                        : !end                     ? "EndNs or End_Timestamp"
                        : layout.grid.empty()      ? "grd, Grid_Size or Grid_Size_X"
                        : layout.workgroup.empty() ? "wgr, Workgroup_Size or Workgroup_Size_X"
                                                   : nullptr;
  if (missing != nullptr)
    return fail(Errc::malformed,
                fmt::format("{}:1: no column {}; give rocprof's results.csv of a run with "
                            "--timestamp on, or rocprofv3's kernel_trace.csv",
                            source, missing));
  if (layout.grid.size() != layout.workgroup.size())
    return fail(Errc::malformed,
                source + ":1: grid and workgroup sizes have not as many dimensions; trace again");
  layout.name = *name;
  layout.start = *start;
  layout.end = *end;
  layout.lds = columns.find({"lds", "LDS_Per_Workgroup", "LDS_Block_Size"});
  layout.registers = columns.find({"vgpr", "arch_vgpr", "Arch_VGPR", "VGPR_Count"});
  layout.gpu = columns.find({"gpu-id", "GPU_ID", "Agent_Id"});
  return layout;
}

/// One line of kernels; error() names the first field that is wrong.
class Row {
 public:
  explicit Row(Fields fields) : fields_(std::move(fields)) {}

  [[nodiscard]] const std::string& text(std::size_t column) const { return fields_[column]; }
  std::uint64_t number(std::size_t column) {
    const std::string& text = fields_[column];
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if ((error != std::errc() || end != text.data() + text.size()) && error_.empty())
      error_ = fmt::format("column {}: '{}' is not a whole number", column + 1, text.substr(0, 40));
    return value;
  }
  std::uint32_t small_number(std::size_t column) {
    const std::uint64_t value = number(column);
    if (value > UINT32_MAX && error_.empty())
      error_ = fmt::format("column {}: {} is too large", column + 1, value);
    return static_cast<std::uint32_t>(value);
  }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  Fields fields_;
  std::string error_;
};

/// Without what rocprof adds to the name of a kernel descriptor.
std::string plain_name(std::string name) {
  for (const std::string_view suffix : {" [clone .kd]", ".kd"})
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  return name;
}

model::TracedKernel kernel_of(Row& row, const Layout& layout, std::string& error) {
  model::TracedKernel kernel{};
  const std::uint64_t start_ns = row.number(layout.start);
  const std::uint64_t end_ns = row.number(layout.end);
  kernel.start_us = static_cast<double>(start_ns) / 1000;
  kernel.duration_us = static_cast<double>(end_ns - start_ns) / 1000;
  kernel.shape.workgroups = 1;
  kernel.shape.workgroup_size = 1;
  for (std::size_t i = 0; i < layout.grid.size(); ++i) {
    const std::uint64_t grid = row.number(layout.grid[i]);
    const std::uint64_t workgroup = row.number(layout.workgroup[i]);
    if (workgroup == 0 || grid == 0 || (grid - 1) / workgroup >= UINT32_MAX) {
      if (error.empty()) error = fmt::format("a grid of {} in workgroups of {}", grid, workgroup);
      continue;
    }
    kernel.shape.workgroups *= static_cast<std::uint32_t>((grid - 1) / workgroup + 1);
    kernel.shape.workgroup_size *= static_cast<std::uint32_t>(workgroup);
  }
  if (layout.lds) kernel.shape.local_memory_bytes = row.small_number(*layout.lds);
  if (layout.registers) kernel.shape.registers_per_thread = row.small_number(*layout.registers);
  if (end_ns < start_ns) error = fmt::format("it ends at {}, before it begins", end_ns);
  if (!row.error().empty()) error = row.error();
  return kernel;
}

}  // namespace

Result<ForeignTrace> parse_rocprof(std::string_view text, const std::string& source,
                                   const std::string& only_gpu) {
  std::optional<Layout> layout;
  std::size_t columns = 0;
  ForeignKernels kernels(source, only_gpu);
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    Fields fields = split(line);
    if (!layout) {
      const auto found = layout_of(fields, source);
      if (!found) return tl::unexpected(found.error());
      layout = *found;
      columns = fields.size();
      continue;
    }
    const auto bad = [&](const std::string& what) {
      return fail(Errc::malformed,
                  fmt::format("{}:{}: {}; correct the line or trace again", source, number, what));
    };
    if (fields.size() != columns)
      return bad(fmt::format("{} fields, and {} columns", fields.size(), columns));
    Row row(std::move(fields));
    std::string error;
    const model::TracedKernel kernel = kernel_of(row, *layout, error);
    if (!error.empty()) return bad(error);
    const std::string gpu = layout->gpu ? row.text(*layout->gpu) : std::string();
    if (!kernels.add(gpu, plain_name(row.text(layout->name)), kernel))
      return fail(Errc::invalid_argument,
                  fmt::format("{}:{}: kernels of GPU '{}' and of GPU '{}'; choose one with "
                              "--only-gpu",
                              source, number, kernels.gpu(), gpu));
  }
  auto trace = kernels.take();
  if (!trace) return tl::unexpected(trace.error());
  return ForeignTrace{.trace = std::move(*trace), .device_name = {}};
}

}  // namespace eclip::profile
