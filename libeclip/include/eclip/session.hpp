// A connection to eclipd that comes back by itself after eclipd has ended.
//
//   eclip::Session<Model> session({}, [](eclip::Connection& connection) {
//     return std::make_unique<Model>(connection);  // code, memory, leases
//   });
//   session.run([](Model& model) { model.infer(); }, [] { infer_without_eclip(); });
#ifndef ECLIP_SESSION_HPP
#define ECLIP_SESSION_HPP

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <eclip/eclip.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace eclip {

/// How a request of a Session ended.
enum class Outcome {
  done,            ///< it returned: what it waited for has completed
  not_done,        ///< eclipd, or the lease, ended under it: nothing that it did not see complete
                   ///< may be taken for done
  without_eclipd,  ///< eclipd was not there when it began; the fallback ran, if there is one
};

struct SessionOptions {
  /// For each connection; must outlive the session, with all that it points to. May be null.
  const eclip_connect_options* connect = nullptr;
  /// Between two attempts to attach again: the first, and the longest after doubling.
  std::chrono::milliseconds first_delay{10};
  std::chrono::milliseconds longest_delay{500};
};

/// Runs requests on what a host sets up on a connection, its `State`. When eclipd or a lease ends,
/// the state is given up, and a thread of the session connects and sets up again, so that requests
/// never wait for it. One thread at a time may call; not to be used across fork().
template <class State>
class Session {
 public:
  /// Loads code, allocates memory, leases streams. It runs in the constructor's thread, later in
  /// one of the session's, never at the same time as a request. ApiError: not now, try again.
  using Setup = std::function<std::unique_ptr<State>(Connection&)>;

  struct Counts {
    std::uint64_t done = 0;
    std::uint64_t not_done = 0;
    std::uint64_t without_eclipd = 0;
    std::uint64_t reattachments = 0;
  };

  /// Attaches once. When eclipd is not there the session starts without it and goes on trying;
  /// every other failure is thrown, as it would hardly pass.
  Session(SessionOptions options, Setup setup) : options_(options), setup_(std::move(setup)) {
    try {
      attached_ = attach();
    } catch (const ApiError& error) {
      if (error.code().value() != ENOTCONN) throw;
      begin_attaching();
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  /// Takes as long as a request to eclipd may that an attempt is waiting for.
  ~Session() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  /// Runs a request, `void(State&)`, which submits packets and returns when it has seen them
  /// complete. Errors that have nothing to do with the end of eclipd or of a lease are thrown.
  template <class Request>
  Outcome run(Request&& request) {
    return run(std::forward<Request>(request), [] {});
  }
  /// `fallback`, `void()`, is what the program does without eclipd. It does not run for a request
  /// that is not_done: whether to repeat that is the program's to say.
  template <class Request, class Fallback>
  Outcome run(Request&& request, Fallback&& fallback) {
    if (!is_attached()) {
      fallback();
      ++counts_.without_eclipd;
      return Outcome::without_eclipd;
    }
    try {
      request(*attached_->state);
    } catch (const ApiError& error) {
      if (!is_an_end(error.code().value())) throw;
      ++counts_.not_done;
      if (on_loss_) on_loss_(*attached_->state);
      attached_.reset();
      begin_attaching();
      return Outcome::not_done;
    }
    ++counts_.done;
    return Outcome::done;
  }

  /// Whether the next request will find eclipd, as far as is known; takes over what has been set
  /// up meanwhile.
  bool is_attached() {
    if (attached_) return true;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!ready_) return false;
      attached_ = std::move(ready_);
    }
    thread_.join();
    ++counts_.reattachments;
    return true;
  }
  /// For programs that can do nothing without eclipd.
  bool wait_until_attached(std::chrono::nanoseconds timeout) {
    if (attached_) return true;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, timeout, [&] { return ready_ != nullptr; });
    }
    return is_attached();
  }

  /// Called with the state that is about to be given up, its memory still readable.
  void on_loss(std::function<void(State&)> call) { on_loss_ = std::move(call); }

  /// Null while not attached.
  State* state() { return is_attached() ? attached_->state.get() : nullptr; }
  /// Null while not attached.
  Connection* connection() { return is_attached() ? &attached_->connection : nullptr; }

  const Counts& counts() const { return counts_; }
  /// Why the last attempt to attach failed; "" if none has.
  std::string last_failure() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return last_failure_;
  }

 private:
  struct Attachment {
    Connection connection;
    std::unique_ptr<State> state;  // goes first
  };

  /// eclipd is gone, or a lease or a packet went with its lease.
  static bool is_an_end(int error) {
    return error == ECONNRESET || error == ENOTCONN || error == ESTALE || error == ECANCELED;
  }

  std::unique_ptr<Attachment> attach() {
    auto made = std::make_unique<Attachment>(Attachment{Connection(options_.connect), nullptr});
    made->state = setup_(made->connection);
    return made;
  }

  void begin_attaching() {
    thread_ = std::thread([this] { attach_again(); });
  }

  /// The session's thread, until it has attached: one attempt, then a delay that doubles.
  void attach_again() {
    auto delay = options_.first_delay;
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      std::unique_ptr<Attachment> made;
      std::string failure;
      try {
        made = attach();
      } catch (const std::exception& error) {
        failure = error.what();
      }
      lock.lock();
      if (made) {
        ready_ = std::move(made);
        changed_.notify_all();
        return;
      }
      last_failure_ = std::move(failure);
      changed_.wait_for(lock, delay, [&] { return stopping_; });
      delay = std::min(2 * delay, options_.longest_delay);
    }
  }

  SessionOptions options_;
  Setup setup_;
  std::function<void(State&)> on_loss_;
  std::unique_ptr<Attachment> attached_;
  Counts counts_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::unique_ptr<Attachment> ready_;
  std::string last_failure_;
  bool stopping_ = false;
  std::thread thread_;  // running while neither attached_ nor ready_ is set
};

}  // namespace eclip

#endif  // ECLIP_SESSION_HPP
