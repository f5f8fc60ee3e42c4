/* libeclip: lease CU-masked streams of an AMD GPU from eclipd and dispatch kernels on them.
 *
 * C99 and C++. Functions that can fail return 0 or -errno; what went wrong, in words, is at
 * eclip_last_error(). None aborts, throws, or blocks without limit: a call that asks
 * eclipd for something takes at most the connection's timeout, eclip_connect(),
 * eclip_disconnect() and eclip_scheduler_destroy() at most twice that.
 *
 * Without eclipd, eclip_connect() returns -ENOTCONN and says so once; the program then runs as it
 * would without ECLIP.
 *
 * A worker either lets its plan choose streams (eclip_scheduler: requests of kernels in, and no
 * more to say), or leases streams and chooses itself (eclip_lease).
 *
 * Threads: an eclip_context and an eclip_scheduler may be used by many threads, an eclip_lease and
 * an eclip_program by one at a time, and the uses of one signal follow each other. After fork() the
 * child must not use its parent's contexts; it makes its own. Calls that ask eclipd for something
 * return -ECONNRESET there; submissions are not checked.
 *
 * Environment: ECLIP_SOCKET, eclipd's socket; ECLIP_SHARE, see eclip_lease_request; ECLIP_PROFILE,
 * see eclip_connect_options; ECLIP_CUS, the number of CUs that every lease asks for, with
 * ECLIP_ANY_STREAM, whatever the program says.
 * ECLIP_RECORD, an existing directory: each connection writes there what its dispatches took, for
 * eclip-profile record. Each kernel of a lease then waits for the one before it, at most 256
 * dispatches without a signal are in flight (-EAGAIN), and 256 signals fewer can be created.
 *
 * Structs: set struct_size to the struct's sizeof and all reserved fields to 0; -EINVAL otherwise.
 *
 * A call that asks eclipd for something returns -ETIMEDOUT when the answer takes too long. What
 * eclipd granted after that is released by eclip_disconnect().
 */
#ifndef ECLIP_ECLIP_H
#define ECLIP_ECLIP_H

#include <stdint.h>

#if defined(__GNUC__)
#define ECLIP_API __attribute__((visibility("default")))
#else
#define ECLIP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A connection to eclipd and all that it holds. */
typedef struct eclip_context eclip_context;
/* The exclusive use of one stream: a CU-masked hardware queue of eclipd's pool. */
typedef struct eclip_lease eclip_lease;

/* The library's version, "MAJOR.MINOR.PATCH". */
ECLIP_API const char* eclip_version(void);

/* What the calling thread's last failed call reported, in words; "" if none has failed. Valid until
 * the thread's next call. */
ECLIP_API const char* eclip_last_error(void);

/* --- connection ------------------------------------------------------------------------------- */

struct eclip_connect_options {
  uint32_t struct_size;    /* sizeof(struct eclip_connect_options) */
  uint32_t timeout_ms;     /* for connecting and for each later request; 0: 1000 */
  const char* socket_path; /* NULL: $ECLIP_SOCKET, else /run/eclip/eclipd.sock */
  const char* worker_name; /* shown by eclipctl; NULL: the program's name */
  /* Receives the library's rare one-line messages; NULL: standard error. */
  void (*log)(void* user, const char* line);
  void* log_user;
  /* Since 1.2. */
  const char* profile;   /* name of the profile that the plan shall reckon with, as eclipctl plan
                            shows it; NULL: $ECLIP_PROFILE, else none */
  double requests_per_s; /* that the worker expects, in a second of device time; 0: the next one at
                            once, or not known */
};

/* Connects to eclipd. `options` may be NULL.
 *   -ENOTCONN  eclipd is not running; said once per process through `log`
 *   -EACCES    the user may not connect
 *   -EPROTO    eclipd speaks another protocol or layout version
 *   -ETIMEDOUT eclipd does not answer
 */
ECLIP_API int eclip_connect(const struct eclip_connect_options* options, eclip_context** context);

/* Releases everything the context holds, leases and memory mappings too, and frees it; its leases
 * must not be used any more. NULL is allowed. */
ECLIP_API void eclip_disconnect(eclip_context* context);

struct eclip_gpu {
  uint32_t struct_size; /* set by the caller */
  uint32_t cu_count;
  char name[64]; /* as the driver's topology reports it */
  uint32_t stream_count;
  uint32_t reserved;
  /* Device nanoseconds that pass in a host nanosecond, by the GPU's own clock: 1 on hardware. */
  double device_time_rate;
};

/* Describes the GPU whose streams eclipd leases. */
ECLIP_API int eclip_gpu_describe(eclip_context* context, struct eclip_gpu* gpu);

/* --- the plan --------------------------------------------------------------------------------- */

#define ECLIP_NO_MASK 0xfeu

/* Where a kernel of the worker belongs by eclipd's plan. */
struct eclip_plan_entry {
  uint32_t struct_size;  /* set by the caller */
  uint32_t worker;       /* its bit in sets of active workers, as long as it is connected */
  uint64_t epoch;        /* of the plan; another one: another plan */
  uint32_t stream;       /* of the pool, or ECLIP_NO_MASK: a queue without a CU mask */
  uint32_t first_kernel; /* of the group that stays together, in program order */
  uint32_t end_kernel;   /* the first of the next group; UINT32_MAX: there is none */
  uint32_t reserved;
};

/* Looks up where the plan in force has the worker's kernel, in program order from 0, while the
 * workers of a set have requests: bit i is the worker whose entries say i, this worker included.
 * Some hundred loads, no system call.
 *   -ENOENT there is no plan, the worker has no part in it, or the set is not without it
 *   -EAGAIN plans changed faster than they could be read */
ECLIP_API int eclip_plan_lookup(eclip_context* context, uint32_t active_workers, uint32_t kernel,
                                struct eclip_plan_entry* entry);

/* Tells eclipd, in passing, what the worker sees: two stores, no system call. A change of a quarter
 * (planner.replan_percent) leads to another plan.
 *   requests_per_s  that come in, in a second of device time; 0: not known
 *   time_ratio      time of the worker's requests relative to what its profile says of the streams
 *                   that they ran on; 0: not known
 * -EINVAL: one of them is negative, not a number, or more than 1000000 */
ECLIP_API int eclip_report_load(eclip_context* context, double requests_per_s, double time_ratio);

/* --- leases ----------------------------------------------------------------------------------- */

#define ECLIP_ANY_STREAM UINT32_MAX

#define ECLIP_PRIORITY_LOW (-1)
#define ECLIP_PRIORITY_NORMAL 0
#define ECLIP_PRIORITY_HIGH 1

struct eclip_lease_request {
  uint32_t struct_size;
  uint32_t stream;   /* of the pool, or ECLIP_ANY_STREAM */
  uint32_t cu_count; /* with ECLIP_ANY_STREAM: the smallest free stream with at least as many CUs */
  /* Since 1.1. */
  int32_t priority; /* ECLIP_PRIORITY_...: place in the queue; eclipd may be configured to take
                       streams from leases of lower priority */
  /* 1-100: the stream has at most so many percent of the GPU's CUs (but the smallest stream is
   * always allowed), whatever cu_count asks for. It is also the weight of the lease where eclipd
   * lets several share a stream. 0: $ECLIP_SHARE, or without that no limit, and weight 100. */
  uint32_t share_percent;
  uint32_t wait_ms;     /* host time to wait in the queue for a stream; 0: not at all */
  uint32_t duration_ms; /* host time after which eclipd revokes the lease unless it has been renewed
                           (eclip_lease_renew); 0: never */
};

/* Acquires a stream. Blocks for an answer of eclipd as every call does and, only when wait_ms is
 * not 0, for so much longer. -EBUSY      no stream that fits is free, and wait_ms is 0 -ETIMEDOUT
 * none became free within wait_ms, or eclipd does not answer -ESTALE     an administrator took the
 * request out of the queue -EINVAL     no such stream, more CUs than the pool's largest stream has,
 * or ECLIP_SHARE is not a number from 1 to 100 -EDQUOT     this worker or its user has as many
 * leases as it may -EACCES     the user may not ask for this priority -ECONNRESET eclipd is gone
 */
ECLIP_API int eclip_lease_acquire(eclip_context* context, const struct eclip_lease_request* request,
                                  eclip_lease** lease);

/* Renews the lease for another duration_ms, from when the present one ends; one store, no system
 * call. -ESTALE when it was revoked or has ended. */
ECLIP_API int eclip_lease_renew(eclip_lease* lease);

/* Gives the stream back. Packets already submitted still run, unless the lease was revoked and its
 * grace period ends first. NULL is allowed. */
ECLIP_API void eclip_lease_release(eclip_lease* lease);

/* eclip_lease_state.state. After ACTIVE, submissions return -ESTALE: release the lease and plan
 * anew. Packets submitted before a revocation run on until the grace period is over; what is not in
 * the hardware queue by then is dropped, and waiting for it returns -ECANCELED. A worker that goes
 * on writing packets past a revocation is cut off. */
#define ECLIP_LEASE_ACTIVE 3u
#define ECLIP_LEASE_REVOKED 4u
#define ECLIP_LEASE_ENDED 5u

/* eclip_lease_state.reason: why it was revoked, or ended. */
#define ECLIP_REASON_NONE 0u
#define ECLIP_REASON_RELEASED 1u
#define ECLIP_REASON_ADMINISTRATOR 2u
#define ECLIP_REASON_PREEMPTED 3u  /* by a lease of higher priority */
#define ECLIP_REASON_EXPIRED 4u    /* not renewed in time */
#define ECLIP_REASON_DEPENDENCY 7u /* one of its packets waits for one that was dropped */
#define ECLIP_REASON_CUT_OFF 8u    /* the worker broke the rules */

struct eclip_lease_state {
  uint32_t struct_size; /* set by the caller */
  uint32_t stream;
  uint32_t cu_count;
  uint32_t reserved;
  uint64_t id;
  uint64_t packets_submitted;
  /* Since 1.1. */
  uint32_t state;       /* ECLIP_LEASE_... */
  uint32_t reason;      /* ECLIP_REASON_... */
  uint64_t deadline_ns; /* on CLOCK_MONOTONIC: when it expires unless renewed, or, revoked, when
                           the grace period is over; 0: never */
  uint64_t packets_accepted; /* once it has ended: those that were not dropped */
};

ECLIP_API int eclip_lease_describe(eclip_lease* lease, struct eclip_lease_state* state);

/* --- memory, code, kernels -------------------------------------------------------------------- */

/* Device-local memory (VRAM); the host cannot read or write it. */
#define ECLIP_MEMORY_DEVICE_LOCAL 1u

struct eclip_memory {
  uint32_t struct_size; /* set by the caller */
  uint32_t handle;
  uint64_t gpu_address;
  uint64_t bytes; /* rounded up to pages */
  void* host;     /* NULL for device-local memory */
};

/* Allocates memory that kernels can read and write, `bytes` > 0, zeroed unless device-local.
 *   -EIO    eclipd could not get it from the driver, because the device is full for example
 *   -EDQUOT the worker's quota is used up */
ECLIP_API int eclip_memory_allocate(eclip_context* context, uint64_t bytes, uint32_t flags,
                                    struct eclip_memory* memory);

/* Frees it. No submitted packet may still use it. */
ECLIP_API int eclip_memory_free(eclip_context* context, const struct eclip_memory* memory);

/* Copies a position-independent code image into GPU memory that no worker can write.
 * `code` becomes its handle; it lives as long as the context. */
ECLIP_API int eclip_code_load(eclip_context* context, const void* image, uint64_t bytes,
                              uint32_t* code);

/* Makes the kernel object (64-byte AMDHSA kernel descriptor) at `offset` of the image, a multiple
 * of 64, known as a kernel with `kernarg_bytes` of arguments. */
ECLIP_API int eclip_kernel_register(eclip_context* context, uint32_t code, uint64_t offset,
                                    uint32_t kernarg_bytes, uint32_t* kernel);

/* --- signals and packets ---------------------------------------------------------------------- */

/* One use of a signal by one packet; generation 0 means none. */
struct eclip_token {
  uint32_t signal;
  uint32_t generation;
};

/* Reserves a signal. -ENOSPC when all 1024 are taken. */
ECLIP_API int eclip_signal_create(eclip_context* context, uint32_t* signal);
/* Gives it back; its tokens must not be used any more. -EBUSY while its last use has not completed.
 */
ECLIP_API int eclip_signal_destroy(eclip_context* context, uint32_t signal);

/* The packet waits until all earlier packets of the lease have completed. */
#define ECLIP_PACKET_BARRIER 1u
/* `signal` is the packet's completion signal; its use is returned as a token. */
#define ECLIP_PACKET_SIGNAL 2u

struct eclip_dispatch {
  uint32_t struct_size;
  uint32_t flags;  /* ECLIP_PACKET_... */
  uint32_t kernel; /* from eclip_kernel_register */
  uint32_t signal;
  uint32_t grid_size[3];      /* work items, each > 0 */
  uint16_t workgroup_size[3]; /* work items, each > 0, product at most 1024 */
  uint16_t reserved;
  uint32_t group_segment_bytes; /* LDS of a workgroup */
  uint32_t kernarg_memory;      /* handle of memory that holds the arguments; 0: none */
  uint64_t kernarg_offset;      /* in it, a multiple of 16 */
};

/* Submits a kernel: a few stores to shared memory, no system call while the daemon is awake.
 * `token` may be NULL.
 *   -EAGAIN     the lease's ring (1024 packets) is full: nothing was submitted; wait for a token
 * and retry
 *   -EBUSY      the completion signal's last use has not completed: nothing was submitted
 *   -EINVAL     a field's value is not allowed
 *   -ESTALE     the lease was revoked or has ended: nothing was submitted; release it, plan anew
 *   -EPROTO     eclipd has cut this worker off for a bad packet; eclip_last_error() says which
 *   -ECONNRESET eclipd is gone: known at the latest 100 ms after its end
 */
ECLIP_API int eclip_submit_dispatch(eclip_lease* lease, const struct eclip_dispatch* dispatch,
                                    struct eclip_token* token);

#define ECLIP_BARRIER_AND 0u
#define ECLIP_BARRIER_OR 1u

struct eclip_barrier {
  uint32_t struct_size;
  uint32_t flags; /* ECLIP_PACKET_... */
  uint32_t kind;  /* ECLIP_BARRIER_AND, ECLIP_BARRIER_OR */
  uint32_t signal;
  uint32_t dependency_count; /* at most 5 */
  uint32_t reserved;
  struct eclip_token dependencies[5]; /* of packets already submitted by this context */
};

/* Submits a barrier: with ECLIP_PACKET_BARRIER set on the packets after it, they wait until all
 * (AND) or one (OR) of the dependencies have completed. Returns as eclip_submit_dispatch. */
ECLIP_API int eclip_submit_barrier(eclip_lease* lease, const struct eclip_barrier* barrier,
                                   struct eclip_token* token);

/* 1 when the packet of `token` has completed, or the token is none, -ECANCELED when it was dropped
 * with its lease, -EPROTO when eclipd has cut this worker off and will not take the packet,
 * -ECONNRESET when eclipd is gone, and the GPU's queues with it, else 0.
 * A few loads, and a look at the socket once in 20 ms while eclipd's heartbeat is late: for a
 * program that does nothing but poll, the way to learn of eclipd's end. */
ECLIP_API int eclip_is_complete(eclip_context* context, struct eclip_token token);

/* Waits until the packet of `token` has completed; timeout_ns in host time. Spins briefly, then
 * sleeps.
 *   -ECANCELED (not done: the packet was dropped with its lease), -ETIMEDOUT, -EPROTO (cut off: the
 * packet may still be running, but its completion is no longer reported), -ECONNRESET (eclipd is
 * gone), -EINVAL (no such packet was submitted)
 */
ECLIP_API int eclip_wait(eclip_context* context, struct eclip_token token, uint64_t timeout_ns);

/* Start and end of the completed packet on the GPU's clock, in device nanoseconds from an arbitrary
 * zero point; -EAGAIN while it has not completed or its signal has been used again. */
ECLIP_API int eclip_token_times(eclip_context* context, struct eclip_token token,
                                uint64_t* start_ns, uint64_t* end_ns);

/* --- the scheduler: kernels go where the plan says (since 1.3) ---------------------------------
 */

/* The use of all streams of the pool as eclipd's plan says, in turn with other workers. */
typedef struct eclip_scheduler eclip_scheduler;
/* A sequence of operations that take effect in order; what HIP calls a stream. */
typedef struct eclip_program eclip_program;

/* Where workers meet on a stream, latency goes before throughput. */
#define ECLIP_CLASS_THROUGHPUT 0u
#define ECLIP_CLASS_LATENCY 1u

/* A thread of the library moves programs on while the caller does other things. Without, only
 * calls on the scheduler and its programs do: at most two groups of kernels, some 1 ms, of a
 * program are on the GPU at a time. With it, a request costs a system call to wake the thread. */
#define ECLIP_SCHEDULER_THREAD 1u

struct eclip_scheduler_options {
  uint32_t struct_size;
  uint32_t flags;         /* ECLIP_SCHEDULER_... */
  uint32_t latency_class; /* ECLIP_CLASS_... */
  uint32_t reserved;
};

/* Makes the connection's scheduler; a connection has one at a time. `options` may be NULL. Errors
 * of eclip_lease_acquire, and -EALREADY when there is one. With ECLIP_CUS set all goes to one
 * leased stream with so many CUs, as eclip-profile record wants it.  */
ECLIP_API int eclip_scheduler_create(eclip_context* context,
                                     const struct eclip_scheduler_options* options,
                                     eclip_scheduler** scheduler);
/* Gives everything back; programs must not be used any more. Packets on the GPU still run. NULL is
 * allowed. */
ECLIP_API void eclip_scheduler_destroy(eclip_scheduler* scheduler);

/* A program lives as long as its scheduler. -ENOSPC: 16 exist. */
ECLIP_API int eclip_program_create(eclip_scheduler* scheduler, eclip_program** program);

/* The calls below put an operation into a program and return at once. It takes effect when all
 * before it in the program have.
 *   -EAGAIN     1024 operations, or 16 requests, have not gone yet; wait and try again
 *   -EINVAL     a field's value is not allowed, or a begin, end, pin or unpin is out of place
 *   -EPROTO, -ECONNRESET, -ESTALE   as eclip_submit_dispatch; the scheduler is of no use any more,
 *               and what has not been seen complete may not have been done
 */

/* Kernels from here to eclip_request_end are one request: those that the plan's profile has, in its
 * order. The worker counts as active until its requests are complete. deadline_ns: when it should
 * be, on CLOCK_MONOTONIC; earlier ones go first where workers meet; 0: none. */
ECLIP_API int eclip_request_begin(eclip_program* program, uint64_t deadline_ns);
/* `request`, which may be NULL, becomes the request's number in the program, from 1. */
ECLIP_API int eclip_request_end(eclip_program* program, uint64_t* request);

/* eclip_dispatch.flags for eclip_program_dispatch: the kernel stays on the stream where the program
 * is. Other flags are not allowed there: order is the scheduler's. */
#define ECLIP_KERNEL_COOPERATIVE 4u
#define ECLIP_KERNEL_PERSISTENT 8u
ECLIP_API int eclip_program_dispatch(eclip_program* program, const struct eclip_dispatch* dispatch);

/* Kernels from here to eclip_program_unpin stay on one stream. UNIFORM: the same one each time, for
 * a library that relies on the number of CUs; GRAPH: kernels that are launched as one. */
#define ECLIP_PIN_UNIFORM 1u
#define ECLIP_PIN_GRAPH 2u
ECLIP_API int eclip_program_pin(eclip_program* program, uint32_t reason);
ECLIP_API int eclip_program_unpin(eclip_program* program);

/* One recording of an event: the moment when all before it in its program has completed. */
struct eclip_event {
  uint32_t event;
  uint32_t recording; /* 0: none, has come */
};
/* Makes an event of the scheduler, which lives as long as it. -ENOSPC: 1024 exist; each program
 * has one, too. One thread at a time records an event. */
ECLIP_API int eclip_event_create(eclip_scheduler* scheduler, uint32_t* event);
/* `recorded`, which may be NULL, names this recording. */
ECLIP_API int eclip_event_record(eclip_program* program, uint32_t event,
                                 struct eclip_event* recorded);
/* What follows in the program waits for these recordings, at most 1024, of any program of the
 * scheduler. */
ECLIP_API int eclip_program_wait_events(eclip_program* program, const struct eclip_event* events,
                                        uint32_t count);

/* Calls the function when all before has completed; what follows waits for its return. It runs in a
 * thread that is in a call on this scheduler, or the scheduler's own, and must neither wait for it
 * nor destroy it, nor throw. */
ECLIP_API int eclip_program_call(eclip_program* program, void (*function)(void*), void* argument);
/* The same for a copy between host addresses (eclip_memory.host, or the program's own memory),
 * which must stay until it has been done. -ENOMEM. */
ECLIP_API int eclip_program_copy(eclip_program* program, void* to, const void* from,
                                 uint64_t bytes);

/* After -EAGAIN: waits, timeout_ns in host time, until another operation may be put in. */
ECLIP_API int eclip_program_wait_room(eclip_program* program, uint64_t timeout_ns);

/* Moves all programs on; never blocks. For programs that do other things meanwhile. 0, or why
 * nothing more is done, as of the waits below. */
ECLIP_API int eclip_scheduler_advance(eclip_scheduler* scheduler);
/* Requests that wait in the caller's own queue: with any, the worker counts as active. One thread
 * at a time. */
ECLIP_API int eclip_scheduler_waiting(eclip_scheduler* scheduler, uint32_t requests);

/* Waits, timeout_ns in host time, until the program's requests up to that number have completed; 1
 * from eclip_request_test when they have, else 0.
 *   -ETIMEDOUT, -ECANCELED (a lease ended: it was not done), -EINVAL (no such request was begun),
 *   and as above; eclip_last_error() of -ETIMEDOUT names worker, stream and packet that it waits
 *   for */
ECLIP_API int eclip_request_wait(eclip_program* program, uint64_t request, uint64_t timeout_ns);
ECLIP_API int eclip_request_test(eclip_program* program, uint64_t request);
/* The same for all that is in the program. */
ECLIP_API int eclip_program_wait(eclip_program* program, uint64_t timeout_ns);
/* The same for a recording. */
ECLIP_API int eclip_event_wait(eclip_scheduler* scheduler, struct eclip_event event,
                               uint64_t timeout_ns);

struct eclip_scheduler_state {
  uint32_t struct_size;   /* set by the caller */
  uint32_t active_others; /* workers that have a request now, this one not counted */
  uint64_t requests;      /* begun */
  uint64_t scheduled;     /* kernels sent by the plan */
  uint64_t bypassed;      /* kernels that stayed where the program was; eclipctl client show: why */
  uint64_t switches;      /* of streams */
  uint64_t barriers;      /* barrier packets */
  uint64_t plan_epoch;    /* in force; 0: none */
};
ECLIP_API int eclip_scheduler_describe(eclip_scheduler* scheduler,
                                       struct eclip_scheduler_state* state);

#ifdef __cplusplus
}
#endif
#endif /* ECLIP_ECLIP_H */
