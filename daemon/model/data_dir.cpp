#include "daemon/model/data_dir.h"

#include <system_error>

namespace eclip::model {

std::filesystem::path default_data_dir() {
  std::error_code error;
  const std::filesystem::path installed = ECLIP_INSTALLED_DATA_DIR;
  return std::filesystem::exists(installed / "gpus", error) ? installed : ECLIP_SOURCE_DATA_DIR;
}

}  // namespace eclip::model
