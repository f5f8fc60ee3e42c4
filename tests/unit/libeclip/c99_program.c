/* eclip.h is C99, and a C program can use it: compiled without extensions, run without eclipd. */
#include <eclip/eclip.h>
#include <stddef.h>
#include <string.h>

static void ignore(void* user, const char* line) {
  (void)user;
  (void)line;
}

/* Two requests, as a C program has them scheduled. */
static int run(eclip_context* context, const struct eclip_dispatch* dispatch) {
  struct eclip_scheduler_options options = {0};
  struct eclip_scheduler_state state = {0};
  struct eclip_event recorded = {0, 0};
  eclip_scheduler* scheduler = NULL;
  eclip_program* program = NULL;
  uint32_t event = 0;
  uint64_t request = 0;
  int result = 0;
  int i = 0;
  options.struct_size = sizeof options;
  options.flags = ECLIP_SCHEDULER_THREAD;
  options.latency_class = ECLIP_CLASS_LATENCY;
  state.struct_size = sizeof state;
  result = eclip_scheduler_create(context, &options, &scheduler);
  if (result == 0) result = eclip_program_create(scheduler, &program);
  if (result == 0) result = eclip_event_create(scheduler, &event);
  for (i = 0; i < 2 && result == 0; ++i) {
    result = eclip_request_begin(program, 0);
    if (result == 0) result = eclip_program_dispatch(program, dispatch);
    if (result == 0) result = eclip_request_end(program, &request);
  }
  if (result == 0) result = eclip_event_record(program, event, &recorded);
  if (result == 0) result = eclip_event_wait(scheduler, recorded, 1000000000);
  if (result == 0) result = eclip_request_wait(program, request, 1000000000);
  if (result == 0) result = eclip_scheduler_describe(scheduler, &state);
  eclip_scheduler_destroy(scheduler);
  return result;
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
  if (run(NULL, &dispatch) >= 0) return 5;
  eclip_lease_release(NULL);
  eclip_disconnect(NULL);
  return strlen(eclip_version()) > 0 && strlen(eclip_last_error()) > 0 ? 0 : 4;
}
