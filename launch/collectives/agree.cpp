#include "launch/collectives/agree.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "launch/process/watchdog.h"

namespace kt {
namespace {

/// Rounds of a small all-reduce, until one in which every rank has done its work. A rank whose work takes long joins
/// them from a second thread for as long as the work shows signs of life: each round is one to those who wait.
class Rounds {
 public:
  explicit Rounds(MpiCommunicator& comm) : comm_(comm) {}

  /// Returns the text of the UserError that `work` threw.
  std::optional<std::string> run(const std::function<void()>& work) {
    std::exception_ptr lost_peer;
    std::optional<std::string> error;
    std::thread companion([&] {
      try {
        accompany();
      } catch (...) {
        lost_peer = std::current_exception();
      }
    });
    const auto part = [&] {
      const Phase phase("agreement");  // a call of MPI may hang
      {
        const std::lock_guard lock(mutex_);
        is_done_ = true;
      }
      wake_.notify_all();
      companion.join();
    };
    try {
      work();
    } catch (const UserError& thrown) {
      error = thrown.what();
    } catch (...) {
      part();
      throw;
    }
    part();
    if (lost_peer) std::rethrow_exception(lost_peer);
    return error;
  }

  /// Waits without spinning. Returns the lowest rank whose work failed, or the number of ranks.
  int64_t settle(bool failed) {
    const World world = comm_.world();
    const Phase phase("agreement");
    do {
      finish();  // the companion's last
      begin({1, failed ? world.rank : world.size});
      finish();
    } while (result_.done == 0);
    return result_.failing;
  }

 private:
  /// Of all ranks, the least of each.
  struct Word {
    int64_t done;
    int64_t failing;
  };

  void begin(Word word) {
    mine_ = word;
    detail::arrived();
    check_mpi(MPI_Iallreduce(&mine_, &result_, 2, MPI_INT64_T, MPI_MIN, comm_.handle(), &request_),
              "agreement");
  }

  bool is_over() {
    int over = 0;
    check_mpi(MPI_Test(&request_, &over, MPI_STATUS_IGNORE), "agreement");
    return over != 0;
  }

  void finish() {
    for (timespec pause{0, 20'000}; !is_over();
         pause.tv_nsec = std::min(2 * pause.tv_nsec, 5'000'000L))
      nanosleep(&pause, nullptr);
    heartbeat();
  }

  void accompany() {
    constexpr std::chrono::duration<double> kPoll{.005};
    const std::chrono::duration<double> interval{std::min(1.0, watchdog_timeout() / 4)};
    uint64_t beats = 0;
    std::unique_lock lock(mutex_);
    const auto pause = [&](auto time) {
      return !wake_.wait_for(lock, time, [this] { return is_done_; });
    };
    while (pause(interval)) {
      if (!detail::alive_since(beats)) continue;
      begin({0, comm_.world().size});
      while (!is_over())
        if (!pause(kPoll)) return;
    }
  }

  MpiCommunicator& comm_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  Word mine_{}, result_{};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_done_ = false;  // the work, for the companion
};

}  // namespace

void agree(MpiCommunicator& comm, const std::function<void()>& work) {
  const World world = comm.world();
  if (world.size == 1) {
    try {
      return work();
    } catch (const UserError& thrown) {
      throw AgreedError(thrown.what());
    }
  }
  Rounds rounds(comm);
  const std::optional<std::string> error = rounds.run(work);
  const int64_t failing = rounds.settle(error.has_value());
  if (failing == world.size) return;
  const int root = static_cast<int>(failing);
  std::string text = root == world.rank ? *error : std::string();
  auto length = static_cast<int64_t>(text.size());
  comm.broadcast(std::span(&length, 1), root);
  text.resize(static_cast<size_t>(length));
  comm.broadcast(text.data(), length, DataType::kUint8, root);
  throw AgreedError(text);
}

void solo(MpiCommunicator& comm, int root, const char* phase, const std::function<void()>& work) {
  const World world = comm.world();
  KT_CHECK(root >= 0 && root < world.size, "root {} of {}", root, world.size);
  const Phase named(phase);
  agree(comm, [&] {
    if (world.rank == root) work();
  });
}

}  // namespace kt
