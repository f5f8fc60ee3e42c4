#include "tools/eclipctl/output.h"

#include <fmt/core.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace eclip::ctl {

int complain(const Error& error, const Options& options) {
  if (error.code == Errc::gone) {
    fmt::print(stderr,
               "eclipctl: eclipd is not running (nobody listens on {}). Start it: systemctl start "
               "eclipd\n",
               options.socket);
    return exit_no_daemon;
  }
  fmt::print(stderr, "eclipctl: {}\n", error.message());
  return exit_failed;
}

void print_json(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace eclip::ctl
