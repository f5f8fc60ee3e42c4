#include "daemon/profile_library.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "daemon/model/profile.h"
#include "daemon/planner/planner.h"

namespace eclip::daemon {

namespace fs = std::filesystem;

bool is_profile_name(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '+' || c == '-';
  };
  return !text.empty() && text.front() != '.' && std::all_of(text.begin(), text.end(), fits);
}

fs::path ProfileLibrary::file_of(const std::string& name) const {
  constexpr std::string_view suffix = ".json";
  std::error_code error;
  for (const fs::path& directory : directories_) {
    for (const std::string& candidate : {name + ".json", name + "." + gpu_ + ".json"})
      if (fs::is_regular_file(directory / candidate, error)) return directory / candidate;
    fs::path first;
    fs::directory_iterator entry(directory, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      const std::string file = entry->path().filename().string();
      if (file.starts_with(name + ".") && file.ends_with(suffix) &&
          (first.empty() || entry->path() < first))
        first = entry->path();
    }
    if (!first.empty()) return first;
  }
  return {};
}

Result<planner::Worker> ProfileLibrary::find(const std::string& name) {
  if (!is_profile_name(name))
    return fail(Errc::invalid_argument,
                "'" + name + "' is no name of a profile: letters, digits, '.', '_', '+', '-'");
  const fs::path file = file_of(name);
  if (file.empty()) {
    std::string list;
    for (const fs::path& directory : directories_)
      list += (list.empty() ? "" : ", ") + directory.string();
    return fail(Errc::not_found, "there is no profile '" + name + "' in " + list +
                                     "; eclip-profile record makes one");
  }
  std::error_code error;
  const auto written = fs::last_write_time(file, error);
  const auto known = loaded_.find(name);
  if (!error && known != loaded_.end() && known->second.file == file &&
      known->second.written == written)
    return known->second.worker;
  const auto profile = model::load_profile(file);
  if (!profile) return tl::unexpected(profile.error());
  planner::Worker worker = planner::profiled_worker(*profile, name);
  loaded_[name] = {.file = file, .written = written, .worker = worker};
  return worker;
}

}  // namespace eclip::daemon
