#include "ipc/read_file.h"

#include <cerrno>
#include <fstream>
#include <iterator>

namespace eclip {

Result<std::string> read_file(const std::filesystem::path& file) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error))
    return fail(Errc::invalid_argument, "it is a directory; name a file");
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    return fail_errno(errno != 0 ? errno : EIO,
                      "it cannot be opened; check the path and its permissions");
  std::string content{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad()) return fail_errno(EIO, "it cannot be read");
  return content;
}

}  // namespace eclip
