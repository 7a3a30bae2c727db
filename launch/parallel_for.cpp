#include "launch/parallel_for.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "launch/errors.h"
#include "launch/watchdog.h"

namespace kt {

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;  // guards what follows, up to `next`
  std::condition_variable begin, end;
  uint64_t round = 0;
  int running = 0;  // workers still at this round
  bool stopping = false;
  const std::function<void(int64_t, int)>* work = nullptr;
  int64_t n = 0;
  int64_t failed_index = 0;
  std::exception_ptr failure;
  std::atomic<int64_t> next{0};

  // Indices are claimed in order, so all below one that failed have been claimed, and end: the lowest
  // failure does not depend on the schedule.
  void run_pieces(int thread) {
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= n) return;
      try {
        (*work)(index, thread);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure || index < failed_index) {
          failure = std::current_exception();
          failed_index = index;
        }
        next.store(n, std::memory_order_relaxed);
      }
    }
  }

  void serve(int thread) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      begin.wait(lock, [&] { return stopping || round != seen; });
      if (stopping) return;
      seen = round;
      lock.unlock();
      run_pieces(thread);
      lock.lock();
      if (--running == 0) end.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
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
    state_->stopping = true;
  }
  state_->begin.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, const std::function<void(int64_t, int)>& work) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  KT_CHECK(s.work == nullptr, "parallel_for inside parallel_for");
  s.work = &work;
  s.n = n;
  s.next.store(0, std::memory_order_relaxed);
  if (n > 1 && !s.workers.empty()) {
    s.running = static_cast<int>(s.workers.size());
    ++s.round;
    s.begin.notify_all();
  }
  lock.unlock();
  s.run_pieces(0);
  lock.lock();
  // The heartbeats of the workers reach the other ranks through this thread.
  std::exception_ptr lost_peer;
  while (!s.end.wait_for(lock, std::chrono::milliseconds(200), [&] { return s.running == 0; })) {
    lock.unlock();
    try {
      detail::relay_heartbeats();
    } catch (...) {
      lost_peer = std::current_exception();
    }
    lock.lock();
  }
  s.work = nullptr;
  const std::exception_ptr failure = std::exchange(s.failure, nullptr);
  if (lost_peer) std::rethrow_exception(lost_peer);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace kt
