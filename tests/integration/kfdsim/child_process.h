// A program that a test runs beside itself.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace eclip::test {

/// Starts a program with its standard output and error in pipes. Killed and reaped at the latest
/// when the object goes.
class ChildProcess {
 public:
  explicit ChildProcess(const std::vector<std::string>& arguments);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// The next line of its standard output, without the line end; "" at the end or after the
  /// deadline.
  std::string read_line();
  /// Whether it has written this, to either stream, before the deadline.
  bool says(const std::string& text);
  /// Waits for its end, at most until the deadline (-1), and returns its exit status, or 128 + the
  /// signal that killed it. Collects what it wrote to both streams.
  int wait();
  [[nodiscard]] const std::string& output() const { return output_; }
  [[nodiscard]] const std::string& errors() const { return errors_; }

 private:
  bool read_some(int milliseconds);
  bool reap(bool block);

  pid_t pid_ = -1;
  int out_ = -1;
  int err_ = -1;
  int status_ = 0;
  bool reaped_ = false;
  std::string output_;
  std::size_t line_start_ = 0;
  std::string errors_;
};

}  // namespace eclip::test
