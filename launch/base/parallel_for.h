#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace kt {

/// A fixed number of threads, the caller among them, that share out independent pieces of work. Which
/// thread does which piece is left to chance, so results may depend on the index alone.
class ThreadPool {
 public:
  /// Throws: BugError when `threads` < 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  /// Calls `work(index, thread)` for each index in [0, n), thread in [0, threads()); thread 0 is the
  /// caller's. Returns when all are done. After an exception no new piece is begun; the one of the lowest
  /// index is thrown. Not to be called from within `work`.
  void parallel_for(int64_t n, const std::function<void(int64_t index, int thread)>& work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
