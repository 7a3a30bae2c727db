#include "launch/base/parallel_for.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/look_out.h"
#include "launch/process/watchdog.h"

namespace kt {

namespace {

/// A thread's own range of the indices; the others help when theirs is done. On a cache line of its own.
struct alignas(64) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

}  // namespace

struct ThreadPool::State {
  explicit State(int threads) : shares(threads) {}

  std::vector<std::thread> workers;
  std::vector<Share> shares;       // [threads]
  std::atomic<uint64_t> round{0};  // of parallel_for, once its work is laid out
  std::atomic<int> running{0};     // workers still at this round
  std::atomic<bool> stopping{false};
  std::atomic<int64_t> limit{0};  // nothing from here on is begun any more
  const std::function<void(int64_t, int)>* work = nullptr;
  std::mutex mutex;  // for what follows, and for sleeping
  std::condition_variable begin, end;
  std::exception_ptr failure;  // of the piece `limit` is at

  /// The same range for a thread at every call, so that it finds its data in its own cache.
  void lay_out(int64_t n) {
    const auto threads = static_cast<int64_t>(shares.size());
    for (int64_t t = 0; t < threads; ++t) {
      shares[t].next.store(n * t / threads, std::memory_order_relaxed);
      shares[t].end = n * (t + 1) / threads;
    }
    limit.store(n, std::memory_order_relaxed);
  }

  void run_pieces(int thread) {
    for (size_t k = 0; k < shares.size(); ++k) {
      Share& share = shares[(static_cast<size_t>(thread) + k) % shares.size()];
      for (;;) {
        const int64_t index = share.next.fetch_add(1, std::memory_order_relaxed);
        // All before a failure are still done: which one is the lowest does not depend on the schedule.
        if (index >= share.end || index >= limit.load(std::memory_order_relaxed)) break;
        try {
          (*work)(index, thread);
          heartbeat();
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (index < limit.load(std::memory_order_relaxed)) {
            limit.store(index, std::memory_order_relaxed);
            failure = std::current_exception();
          }
        }
      }
    }
  }

  void serve(int thread) {
    uint64_t seen = 0;
    const auto called = [&] { return stopping.load() || round.load() != seen; };
    for (;;) {
      if (!look_out(called)) {
        std::unique_lock lock(mutex);
        begin.wait(lock, called);
      }
      if (stopping.load()) return;
      seen = round.load();
      run_pieces(thread);
      if (running.fetch_sub(1) == 1) {
        const std::lock_guard lock(mutex);
        end.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(std::max(threads, 1))) {
  KT_CHECK(threads >= 1, "{} threads", threads);
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int thread = 1; thread < threads; ++thread) {
    state_->workers.emplace_back([this, thread] { state_->serve(thread); });
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping.store(true);
  }
  state_->begin.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, const std::function<void(int64_t, int)>& work) {
  State& s = *state_;
  KT_CHECK(s.work == nullptr, "parallel_for inside parallel_for");
  s.work = &work;
  s.lay_out(n);
  if (n > 1 && !s.workers.empty()) {
    s.running.store(static_cast<int>(s.workers.size()));
    const std::lock_guard lock(s.mutex);
    s.round.fetch_add(1);
    s.begin.notify_all();
  }
  s.run_pieces(0);
  const auto done = [&] { return s.running.load() == 0; };
  if (!look_out(done)) {
    std::unique_lock lock(s.mutex);
    s.end.wait(lock, done);
  }
  s.work = nullptr;
  const std::exception_ptr failure = std::exchange(s.failure, nullptr);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace kt
