/* eclip.h is C99, and a C program can use it: compiled without extensions, run without eclipd. */
#include <eclip/eclip.h>
#include <stddef.h>
#include <string.h>

static void ignore(void* user, const char* line) {
  (void)user;
  (void)line;
}

int main(void) {
  struct eclip_connect_options options = {0};
  struct eclip_dispatch dispatch = {0};
  struct eclip_barrier barrier = {0};
  eclip_context* context = NULL;
  options.struct_size = sizeof options;
  options.socket_path = "/nonexistent/eclipd.sock";
  options.log = ignore;
  dispatch.struct_size = sizeof dispatch;
  barrier.struct_size = sizeof barrier;
  if (eclip_connect(&options, &context) >= 0 || context != NULL) return 1;
  if (eclip_submit_dispatch(NULL, &dispatch, NULL) >= 0) return 2;
  if (eclip_submit_barrier(NULL, &barrier, NULL) >= 0) return 3;
  eclip_lease_release(NULL);
  eclip_disconnect(NULL);
  return strlen(eclip_version()) > 0 && strlen(eclip_last_error()) > 0 ? 0 : 4;
}
