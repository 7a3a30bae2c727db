#include "launch/agree.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "launch/watchdog.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTag = 32767;
// What the root tells the others: alive, done, or 1 + the length of the error text that follows.
constexpr int64_t kAlive = -1;
constexpr int64_t kDone = 0;

class Relay final : public detail::HeartbeatRelay {
 public:
  Relay(MPI_Comm comm, World world)
      : comm_(comm), world_(world), interval_(std::min(1.0, watchdog_timeout() / 4)) {
    detail::set_heartbeat_relay(this);
  }
  ~Relay() override { detail::set_heartbeat_relay(nullptr); }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  void relay() override {
    const Clock::time_point now = Clock::now();
    if (now - last_ < interval_) return;
    int sent = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &sent,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (!sent) return;
    last_ = now;
    requests_.clear();
    for (int rank = 0; rank < world_.size; ++rank) {
      if (rank == world_.rank) continue;
      check_mpi(MPI_Isend(&kAlive, 1, MPI_INT64_T, rank, kTag, comm_, &requests_.emplace_back()),
                "MPI_Isend");
    }
  }
  void wait() {
    for (MPI_Request& request : requests_) {
      check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
    }
  }

 private:
  MPI_Comm comm_;
  World world_;
  std::chrono::duration<double> interval_;
  Clock::time_point last_ = Clock::now();
  std::vector<MPI_Request> requests_;
};

std::optional<std::string> run(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return std::nullopt;
}

void tell(MPI_Comm comm, World world, const std::optional<std::string>& error) {
  const int64_t word = error ? 1 + static_cast<int64_t>(error->size()) : kDone;
  for (int rank = 0; rank < world.size; ++rank) {
    if (rank == world.rank) continue;
    check_mpi(MPI_Send(&word, 1, MPI_INT64_T, rank, kTag, comm), "MPI_Send");
    if (error) {
      check_mpi(
          MPI_Send(error->data(), static_cast<int>(error->size()), MPI_CHAR, rank, kTag, comm),
          "MPI_Send");
    }
  }
}

std::optional<std::string> wait_for(MPI_Comm comm, int root) {
  int64_t word = kAlive;
  timespec pause{0, 50'000};
  while (word == kAlive) {
    int arrived = 0;
    check_mpi(MPI_Iprobe(root, kTag, comm, &arrived, MPI_STATUS_IGNORE), "MPI_Iprobe");
    if (!arrived) {
      nanosleep(&pause, nullptr);
      pause.tv_nsec = std::min(2 * pause.tv_nsec, 5'000'000L);
      continue;
    }
    check_mpi(MPI_Recv(&word, 1, MPI_INT64_T, root, kTag, comm, MPI_STATUS_IGNORE), "MPI_Recv");
    heartbeat();
  }
  if (word == kDone) return std::nullopt;
  std::string text(static_cast<size_t>(word - 1), '\0');
  check_mpi(MPI_Recv(text.data(), static_cast<int>(text.size()), MPI_CHAR, root, kTag, comm,
                     MPI_STATUS_IGNORE),
            "MPI_Recv");
  return text;
}

}  // namespace

void agree(Communicator& communicator, const std::function<void()>& work) {
  const World world = communicator.world();
  const std::optional<std::string> error = run(work);
  int64_t failing = error ? world.rank : world.size;
  communicator.all_reduce(std::span(&failing, 1), Reduction::kMin);
  if (failing == world.size) return;
  const int root = static_cast<int>(failing);
  std::string text = root == world.rank ? *error : std::string();
  auto length = static_cast<int64_t>(text.size());
  communicator.broadcast(std::span(&length, 1), root);
  text.resize(static_cast<size_t>(length));
  communicator.broadcast(text.data(), length, DataType::kUint8, root);
  throw AgreedError(text);
}

void solo(MpiCommunicator& communicator, int root, const char* phase,
          const std::function<void()>& work) {
  const World world = communicator.world();
  KT_CHECK(root >= 0 && root < world.size, "root {} of {}", root, world.size);
  const Phase named(phase);
  std::optional<std::string> error;
  if (world.rank == root) {
    Relay relay(communicator.handle(), world);
    error = run(work);
    relay.wait();
    tell(communicator.handle(), world, error);
  } else {
    error = wait_for(communicator.handle(), root);
  }
  if (error) throw AgreedError(*error);
}

}  // namespace kt
