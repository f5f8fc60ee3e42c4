// C++17 over the C ABI of libeclip (eclip.h): owners that release what they hold, and exceptions.
//
// Header only: it adds nothing to the library's ABI. Leases, memory and signals keep their
// connection alive. What eclip.h says of threads, errors and fork() holds here too.
#ifndef ECLIP_ECLIP_HPP
#define ECLIP_ECLIP_HPP

#include <eclip/eclip.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace eclip {

/// A failed call: code() has the errno value, what() says what was tried and what happened.
class ApiError : public std::system_error {
 public:
  ApiError(int errno_value, const std::string& what)
      : std::system_error(errno_value, std::generic_category(), what) {}
};

namespace detail {

/// Throws for a negative result of the C ABI; `tried` begins the message.
inline void check(int result, const char* tried) {
  if (result < 0) throw ApiError(-result, std::string(tried) + ": " + eclip_last_error());
}

}  // namespace detail

using Token = eclip_token;

/// GPU memory; freed at the end. Move-only.
class Memory {
 public:
  Memory(std::shared_ptr<eclip_context> context, std::uint64_t bytes, std::uint32_t flags)
      : context_(std::move(context)) {
    memory_.struct_size = sizeof memory_;
    detail::check(eclip_memory_allocate(context_.get(), bytes, flags, &memory_),
                  "allocate GPU memory");
  }
  Memory(Memory&& other) noexcept = default;
  Memory& operator=(Memory&& other) noexcept {
    if (this != &other) {
      reset();
      context_ = std::move(other.context_);
      memory_ = other.memory_;
    }
    return *this;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { reset(); }

  std::uint32_t handle() const { return memory_.handle; }
  std::uint64_t gpu_address() const { return memory_.gpu_address; }
  std::uint64_t bytes() const { return memory_.bytes; }
  /// The memory as the host sees it, as an array of T; null when it is device-local.
  template <class T>
  T* host() const {
    return static_cast<T*>(memory_.host);
  }

 private:
  void reset() noexcept {
    if (context_) static_cast<void>(eclip_memory_free(context_.get(), &memory_));
    context_.reset();
  }

  std::shared_ptr<eclip_context> context_;  // null: moved from
  eclip_memory memory_{};
};

/// A completion signal; given back at the end, when its last use should have completed. Move-only.
class Signal {
 public:
  explicit Signal(std::shared_ptr<eclip_context> context) : context_(std::move(context)) {
    detail::check(eclip_signal_create(context_.get(), &id_), "create a signal");
  }
  Signal(Signal&& other) noexcept = default;
  Signal& operator=(Signal&& other) noexcept {
    if (this != &other) {
      reset();
      context_ = std::move(other.context_);
      id_ = other.id_;
    }
    return *this;
  }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  ~Signal() { reset(); }

  std::uint32_t id() const { return id_; }

 private:
  void reset() noexcept {
    if (context_) static_cast<void>(eclip_signal_destroy(context_.get(), id_));
    context_.reset();
  }

  std::shared_ptr<eclip_context> context_;
  std::uint32_t id_ = 0;
};

/// A stream, held until the end. Move-only; one thread at a time.
class Lease {
 public:
  Lease(std::shared_ptr<eclip_context> context, std::uint32_t stream, std::uint32_t cu_count)
      : Lease(std::move(context), request_for(stream, cu_count)) {}
  /// struct_size is set here.
  Lease(std::shared_ptr<eclip_context> context, eclip_lease_request request)
      : context_(std::move(context)) {
    request.struct_size = sizeof request;
    eclip_lease* lease = nullptr;
    detail::check(eclip_lease_acquire(context_.get(), &request, &lease), "lease a stream");
    lease_.reset(lease);
  }

  eclip_lease_state describe() const {
    eclip_lease_state state{};
    state.struct_size = sizeof state;
    detail::check(eclip_lease_describe(lease_.get(), &state), "describe a lease");
    return state;
  }

  /// False when it was revoked or has ended: let go of it and plan anew.
  [[nodiscard]] bool renew() {
    const int result = eclip_lease_renew(lease_.get());
    if (result == -ESTALE) return false;
    detail::check(result, "renew a lease");
    return true;
  }

  /// False when the ring is full: wait for an earlier token and try again. struct_size is set here;
  /// `token` becomes the signal's use when the packet has ECLIP_PACKET_SIGNAL.
  [[nodiscard]] bool try_submit(eclip_dispatch dispatch, Token* token = nullptr) {
    dispatch.struct_size = sizeof dispatch;
    return submitted(eclip_submit_dispatch(lease_.get(), &dispatch, token), "submit a dispatch");
  }
  [[nodiscard]] bool try_submit(eclip_barrier barrier, Token* token = nullptr) {
    barrier.struct_size = sizeof barrier;
    return submitted(eclip_submit_barrier(lease_.get(), &barrier, token), "submit a barrier");
  }

 private:
  struct Release {
    void operator()(eclip_lease* lease) const { eclip_lease_release(lease); }
  };

  static eclip_lease_request request_for(std::uint32_t stream, std::uint32_t cu_count) {
    eclip_lease_request request{};
    request.stream = stream;
    request.cu_count = cu_count;
    return request;
  }

  static bool submitted(int result, const char* tried) {
    if (result == -EAGAIN) return false;
    detail::check(result, tried);
    return true;
  }

  std::shared_ptr<eclip_context> context_;
  std::unique_ptr<eclip_lease, Release> lease_;
};

/// An ordered sequence of operations of a WorkerScheduler, which must outlive it. One thread at a
/// time.
class WorkerProgram {
 public:
  explicit WorkerProgram(std::shared_ptr<eclip_context> context, eclip_scheduler* scheduler)
      : context_(std::move(context)) {
    detail::check(eclip_program_create(scheduler, &program_), "create a program");
  }

  /// deadline_ns on CLOCK_MONOTONIC; 0: none.
  void begin_request(std::uint64_t deadline_ns = 0) {
    put("begin a request", [&] { return eclip_request_begin(program_, deadline_ns); });
  }
  /// The request's number in the program, for wait().
  std::uint64_t end_request() {
    std::uint64_t number = 0;
    put("end a request", [&] { return eclip_request_end(program_, &number); });
    return number;
  }
  /// struct_size is set here.
  void dispatch(eclip_dispatch dispatch) {
    dispatch.struct_size = sizeof dispatch;
    put("dispatch a kernel", [&] { return eclip_program_dispatch(program_, &dispatch); });
  }
  eclip_event record(std::uint32_t event) {
    eclip_event recorded{};
    put("record an event", [&] { return eclip_event_record(program_, event, &recorded); });
    return recorded;
  }
  void wait_events(const eclip_event* events, std::uint32_t count) {
    put("wait for events", [&] { return eclip_program_wait_events(program_, events, count); });
  }
  void call(void (*function)(void*), void* argument) {
    put("call a function", [&] { return eclip_program_call(program_, function, argument); });
  }
  void copy(void* to, const void* from, std::uint64_t bytes) {
    put("copy", [&] { return eclip_program_copy(program_, to, from, bytes); });
  }
  void pin(std::uint32_t reason) {
    put("pin", [&] { return eclip_program_pin(program_, reason); });
  }
  void unpin() {
    put("unpin", [&] { return eclip_program_unpin(program_); });
  }
  /// False when the timeout (host time) passed first.
  [[nodiscard]] bool wait(std::uint64_t request, std::chrono::nanoseconds timeout) {
    const auto count = timeout.count() > 0 ? static_cast<std::uint64_t>(timeout.count()) : 0;
    return waited(eclip_request_wait(program_, request, count));
  }
  [[nodiscard]] bool wait_for_all(std::chrono::nanoseconds timeout) {
    const auto count = timeout.count() > 0 ? static_cast<std::uint64_t>(timeout.count()) : 0;
    return waited(eclip_program_wait(program_, count));
  }

 private:
  /// Waits for room when the program is full; throws ETIMEDOUT when none comes.
  template <class Operation>
  void put(const char* tried, Operation operation) {
    constexpr std::uint64_t longest_ns = 60'000'000'000;
    int result = operation();
    while (result == -EAGAIN) {
      detail::check(eclip_program_wait_room(program_, longest_ns), tried);
      result = operation();
    }
    detail::check(result, tried);
  }
  static bool waited(int result) {
    if (result == -ETIMEDOUT) return false;
    detail::check(result, "wait for a program");
    return true;
  }

  std::shared_ptr<eclip_context> context_;
  eclip_program* program_ = nullptr;
};

/// Sends kernels where eclipd's plan says. Move-only.
class WorkerScheduler {
 public:
  explicit WorkerScheduler(std::shared_ptr<eclip_context> context,
                           const eclip_scheduler_options* options)
      : context_(std::move(context)) {
    eclip_scheduler* scheduler = nullptr;
    detail::check(eclip_scheduler_create(context_.get(), options, &scheduler),
                  "create a scheduler");
    scheduler_.reset(scheduler);
  }

  WorkerScheduler(WorkerScheduler&& other) noexcept = default;
  WorkerScheduler& operator=(WorkerScheduler&& other) noexcept {
    // The scheduler first: the connection may go with the last that holds it.
    scheduler_ = std::move(other.scheduler_);
    context_ = std::move(other.context_);
    return *this;
  }
  WorkerScheduler(const WorkerScheduler&) = delete;
  WorkerScheduler& operator=(const WorkerScheduler&) = delete;
  ~WorkerScheduler() = default;

  WorkerProgram create_program() { return WorkerProgram(context_, scheduler_.get()); }
  std::uint32_t create_event() {
    std::uint32_t event = 0;
    detail::check(eclip_event_create(scheduler_.get(), &event), "create an event");
    return event;
  }
  void advance() { detail::check(eclip_scheduler_advance(scheduler_.get()), "go on"); }
  /// Requests that wait in the program's own queue.
  void set_waiting(std::uint32_t requests) {
    detail::check(eclip_scheduler_waiting(scheduler_.get(), requests), "tell of requests");
  }
  /// False when the timeout (host time) passed first.
  [[nodiscard]] bool wait(eclip_event event, std::chrono::nanoseconds timeout) {
    const auto count = timeout.count() > 0 ? static_cast<std::uint64_t>(timeout.count()) : 0;
    const int result = eclip_event_wait(scheduler_.get(), event, count);
    if (result == -ETIMEDOUT) return false;
    detail::check(result, "wait for an event");
    return true;
  }
  eclip_scheduler_state describe() const {
    eclip_scheduler_state state{};
    state.struct_size = sizeof state;
    detail::check(eclip_scheduler_describe(scheduler_.get(), &state), "describe a scheduler");
    return state;
  }

 private:
  struct Destroy {
    void operator()(eclip_scheduler* scheduler) const { eclip_scheduler_destroy(scheduler); }
  };

  std::shared_ptr<eclip_context> context_;
  std::unique_ptr<eclip_scheduler, Destroy> scheduler_;
};

/// A connection to eclipd. Copies share it.
class Connection {
 public:
  /// Throws when eclipd is not running, as for any other failure.
  explicit Connection(const eclip_connect_options* options = nullptr) {
    detail::check(open(options, context_), "connect to eclipd");
  }
  /// Nothing when eclipd is not running; the program then goes on without ECLIP.
  static std::optional<Connection> try_open(const eclip_connect_options* options = nullptr) {
    Connection connection{Unopened{}};
    const int result = open(options, connection.context_);
    if (result == -ENOTCONN) return std::nullopt;
    detail::check(result, "connect to eclipd");
    return connection;
  }

  eclip_gpu gpu() const {
    eclip_gpu gpu{};
    gpu.struct_size = sizeof gpu;
    detail::check(eclip_gpu_describe(context_.get(), &gpu), "describe the GPU");
    return gpu;
  }

  /// The smallest free stream with at least `cu_count` CUs.
  Lease lease_any(std::uint32_t cu_count) { return {context_, ECLIP_ANY_STREAM, cu_count}; }
  Lease lease_stream(std::uint32_t stream) { return {context_, stream, 0}; }
  /// With priority, share, time to wait and term; struct_size is set here. Throws ETIMEDOUT when no
  /// stream became free within wait_ms.
  Lease lease(const eclip_lease_request& request) { return {context_, request}; }

  /// A connection has one at a time.
  WorkerScheduler scheduler(const eclip_scheduler_options* options = nullptr) {
    return WorkerScheduler(context_, options);
  }

  Memory allocate(std::uint64_t bytes, std::uint32_t flags = 0) { return {context_, bytes, flags}; }
  Signal create_signal() { return Signal(context_); }

  /// The handle of the loaded image.
  std::uint32_t load_code(const void* image, std::size_t bytes) {
    std::uint32_t code = 0;
    detail::check(eclip_code_load(context_.get(), image, bytes, &code), "load a code image");
    return code;
  }
  std::uint32_t register_kernel(std::uint32_t code, std::uint64_t offset,
                                std::uint32_t kernarg_bytes) {
    std::uint32_t kernel = 0;
    detail::check(eclip_kernel_register(context_.get(), code, offset, kernarg_bytes, &kernel),
                  "register a kernel");
    return kernel;
  }

  /// True too when it never will be: wait() then tells why.
  bool is_complete(Token token) const { return eclip_is_complete(context_.get(), token) != 0; }
  /// False when the timeout (host time) passed first.
  [[nodiscard]] bool wait(Token token, std::chrono::nanoseconds timeout) {
    const auto count = timeout.count() > 0 ? static_cast<std::uint64_t>(timeout.count()) : 0;
    const int result = eclip_wait(context_.get(), token, count);
    if (result == -ETIMEDOUT) return false;
    detail::check(result, "wait for a packet");
    return true;
  }
  struct Times {
    std::chrono::nanoseconds start;  ///< device time from an arbitrary zero point
    std::chrono::nanoseconds end;
  };
  /// When the completed packet ran; its signal must not have been used again.
  Times times(Token token) const {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    detail::check(eclip_token_times(context_.get(), token, &start, &end), "read a packet's times");
    return {std::chrono::nanoseconds(start), std::chrono::nanoseconds(end)};
  }

  /// Where the plan has a kernel while those workers have requests; nothing when it says nothing of
  /// it.
  std::optional<eclip_plan_entry> plan(std::uint32_t active_workers, std::uint32_t kernel) const {
    eclip_plan_entry entry{};
    entry.struct_size = sizeof entry;
    const int result = eclip_plan_lookup(context_.get(), active_workers, kernel, &entry);
    if (result == -ENOENT) return std::nullopt;
    detail::check(result, "look up the plan");
    return entry;
  }
  void report_load(double requests_per_s, double time_ratio) const {
    detail::check(eclip_report_load(context_.get(), requests_per_s, time_ratio), "report the load");
  }

  /// For calls of the C ABI; owned by the connection.
  eclip_context* get() const { return context_.get(); }

 private:
  struct Unopened {};
  explicit Connection(Unopened) {}

  static int open(const eclip_connect_options* options, std::shared_ptr<eclip_context>& context) {
    eclip_context* opened = nullptr;
    const int result = eclip_connect(options, &opened);
    if (result == 0) context.reset(opened, eclip_disconnect);
    return result;
  }

  std::shared_ptr<eclip_context> context_;
};

}  // namespace eclip

#endif  // ECLIP_ECLIP_HPP
