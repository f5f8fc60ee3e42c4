// Aligned text: tables with headers, durations and sizes that people can read.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace eclip::text {

enum class Align { left, right };

struct Column {
  std::string header;
  Align align = Align::left;
};

/// Rows under headers, each column as wide as its widest cell; an empty cell shows as "-".
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// One cell for each column.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string to_string() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// The two largest units: "3d 4h", "2h 5m", "4m 12s"; below a minute "12.3s".
std::string format_duration(std::chrono::milliseconds duration);
/// "850 ns", "12.3 us", "4.56 ms", "7.89 s".
std::string format_ns(std::uint64_t ns);
/// "512 B", "1.5 KiB", "3.2 GiB".
std::string format_bytes(std::uint64_t bytes);

}  // namespace eclip::text
