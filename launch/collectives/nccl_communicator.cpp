#include "launch/collectives/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "launch/collectives/part_offsets.h"
#include "launch/process/mpi_session.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::chrono::milliseconds kAbortGrace{3000};

ncclDataType_t nccl_type(DataType type) {
  switch (type) {
    case DataType::kUint8:
      return ncclUint8;
    case DataType::kInt32:
      return ncclInt32;
    case DataType::kInt64:
      return ncclInt64;
    case DataType::kUint64:
      return ncclUint64;
    case DataType::kFloat32:
      return ncclFloat32;
    case DataType::kFloat64:
      return ncclFloat64;
  }
  KT_CHECK(false, "data type {}", static_cast<int>(type));
  return ncclUint8;
}

ncclRedOp_t nccl_op(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return ncclSum;
    case Reduction::kMin:
      return ncclMin;
    case Reduction::kMax:
      return ncclMax;
  }
  KT_CHECK(false, "reduction {}", static_cast<int>(reduction));
  return ncclSum;
}

std::string text_of(cudaError_t code) {
  return fmt::format("CUDA: {} ({})", cudaGetErrorString(code), cudaGetErrorName(code));
}

// Between two looks at the device: short at first, so that little is lost when it is nearly done.
class Pause {
 public:
  void take() {
    nanosleep(&length_, nullptr);
    length_.tv_nsec = std::min(2 * length_.tv_nsec, 1'000'000L);
  }

 private:
  timespec length_{0, 10'000};
};

// Not done is no error, but the runtime remembers it, and another library's check would find it.
bool is_done(cudaError_t code) {
  if (code == cudaErrorNotReady) static_cast<void>(cudaGetLastError());
  return code != cudaErrorNotReady;
}

// A device's address on its bus: the same from every process of a host.
using BusId = std::array<char, 32>;

}  // namespace

int choose_device(MpiCommunicator& control) {
  const Phase phase("choice of devices");
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(control.handle(), MPI_COMM_TYPE_SHARED, control.world().rank,
                                MPI_INFO_NULL, &comm),
            "MPI_Comm_split_type");
  World node;
  check_mpi(MPI_Comm_rank(comm, &node.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm, &node.size), "MPI_Comm_size");

  int visible = 0, device = -1;
  BusId own{};
  cudaError_t code = cudaGetDeviceCount(&visible);
  if (code == cudaSuccess && visible == 0) code = cudaErrorNoDevice;
  if (code == cudaSuccess) {
    device = node.rank % visible;
    code = cudaSetDevice(device);
  }
  if (code == cudaSuccess) {
    code = cudaDeviceGetPCIBusId(own.data(), static_cast<int>(own.size()), device);
  }
  if (code != cudaSuccess) static_cast<void>(cudaGetLastError());

  std::vector<BusId> taken(static_cast<size_t>(node.size));
  check_mpi(
      MPI_Allgather(own.data(), sizeof own, MPI_CHAR, taken.data(), sizeof own, MPI_CHAR, comm),
      "MPI_Allgather");
  check_mpi(MPI_Comm_free(&comm), "MPI_Comm_free");
  agree(control, [&] {
    constexpr const char* kRemedy =
        "expected a device for each rank: start no more ranks on a host than it has devices, or "
        "set parallel.backend=mpi";
    if (code != cudaSuccess) {
      user_error("host {}: {} ranks, but rank {} has no device: {}; {}",
                 MpiSession::running()->host(), node.size, control.world().rank, text_of(code),
                 kRemedy);
    }
    const std::set<BusId> devices(taken.begin(), taken.end());
    if (static_cast<int>(devices.size()) < node.size) {
      user_error("host {}: {} ranks, but {} devices ({} visible to rank {}); {}",
                 MpiSession::running()->host(), node.size, devices.size(), visible,
                 control.world().rank, kRemedy);
    }
  });
  return device;
}

// One collective: numbered, known to the watchdog, issued as a whole.
class NcclCommunicator::Call {
 public:
  Call(NcclCommunicator& owner, const char* operation, Stream stream)
      : owner_(owner),
        name_{operation, ++owner.sequence_},
        phase_(operation, name_.sequence),
        stream_(stream.handle ? static_cast<cudaStream_t>(stream.handle) : owner.stream_) {
    KT_CHECK(owner.comm_, "{} #{}: NCCL has ended", operation, name_.sequence);
  }
  cudaStream_t stream() const { return stream_; }
  Name name() const { return name_; }
  void check_cuda(cudaError_t code) const { owner_.check_cuda(code, name_); }
  void check_count(int64_t count) const {
    KT_CHECK(count >= 0, "{} #{}: count {}", name_.operation, name_.sequence, count);
  }
  void check_size(std::span<const int64_t> counts) const {
    KT_CHECK(static_cast<int>(counts.size()) == owner_.world_.size,
             "{} #{}: {} counts for {} ranks", name_.operation, name_.sequence, counts.size(),
             owner_.world_.size);
  }

  /// What follows on the stream runs after every earlier collective.
  void begin() const {
    owner_.forget_done();
    if (owner_.issued_.empty() || owner_.issued_.back().stream == stream_) return;
    // All ranks issue in one order; one order of running on all of them cannot deadlock.
    check_cuda(cudaStreamWaitEvent(stream_, owner_.issued_.back().end, 0));
  }
  /// Puts the NCCL calls of `calls`, each given to its argument, on the stream as one group.
  template <class Calls>
  void group(Calls&& calls) const {
    ncclResult_t first = ncclGroupStart();
    calls([&first](ncclResult_t result) {
      if (first == ncclSuccess || first == ncclInProgress) first = result;
    });
    const ncclResult_t last = ncclGroupEnd();  // even after an error: the group is closed
    owner_.check_nccl(first, name_);
    owner_.check_nccl(last, name_);
    // Until then NCCL may not have put its work on the stream: what follows there would come before it.
    owner_.wait(name_, [](ncclResult_t state) { return state == ncclSuccess; });
  }
  /// The collective is all on the stream.
  void end() const {
    if (owner_.idle_events_.empty()) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
      owner_.idle_events_.push_back(event);
    }
    cudaEvent_t event = owner_.idle_events_.back();
    check_cuda(cudaEventRecord(event, stream_));
    owner_.idle_events_.pop_back();
    owner_.issued_.push_back({name_, stream_, event});
  }
  template <class Calls>
  void issue(Calls&& calls) const {
    begin();
    group(std::forward<Calls>(calls));
    end();
  }

 private:
  NcclCommunicator& owner_;
  Name name_;
  Phase phase_;
  cudaStream_t stream_;
};

NcclCommunicator::NcclCommunicator(MpiCommunicator& control)
    : world_(control.world()),
      host_(MpiSession::running()->host()),
      device_(choose_device(control)) {
  const Name start{"start of NCCL"};
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), start);
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, sizeof *arrived_), start);
  arrived_ = static_cast<int32_t*>(memory);
  check_cuda(cudaMemsetAsync(arrived_, 0, sizeof *arrived_, stream_), start);
  connect(control);
}

void NcclCommunicator::connect(MpiCommunicator& control) {
  const Name name{"ncclCommInitRankConfig"};
  const Phase phase(name.operation);
  ncclUniqueId id{};
  if (world_.rank == 0) check_nccl(ncclGetUniqueId(&id), {"ncclGetUniqueId"});
  control.broadcast(id.internal, sizeof id.internal, DataType::kUint8, 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check_nccl(ncclCommInitRankConfig(&comm_, world_.size, id, world_.rank, &config), name);
  wait(name, [](ncclResult_t state) { return state == ncclSuccess; });
}

// Whether any was found.
bool NcclCommunicator::forget_done() {
  bool found = false;
  while (!issued_.empty()) {
    const cudaError_t code = cudaEventQuery(issued_.front().end);
    if (!is_done(code)) break;
    check_cuda(code, issued_.front().name);
    idle_events_.push_back(issued_.front().end);
    issued_.pop_front();
    found = true;
  }
  return found;
}

// Waits until `done(NCCL's state)`; every collective that ends meanwhile is a sign of life.
template <class Done>
void NcclCommunicator::wait(Name name, Done&& done) {
  Clock::time_point begin = Clock::now();
  Pause pause;
  for (;;) {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(comm_, &state), name);
    if (state != ncclSuccess && state != ncclInProgress) check_nccl(state, oldest(name));
    if (done(state)) return;
    if (forget_done()) begin = Clock::now();
    const double timeout_s = watchdog_timeout();
    if (Seconds(Clock::now() - begin).count() > timeout_s) {
      fail(oldest(name),
           fmt::format("no end after {:g} s (parallel.timeout_s): a rank is lost or stuck",
                       timeout_s));
    }
    // This loop has a limit of its own, which knows more; the watchdog is for calls that never return.
    heartbeat();
    pause.take();
  }
}

NcclCommunicator::Name NcclCommunicator::oldest(Name otherwise) const {
  return issued_.empty() ? otherwise : issued_.front().name;
}

void NcclCommunicator::check_cuda(int code, Name name) {
  if (code != cudaSuccess) fail(name, text_of(static_cast<cudaError_t>(code)));
}

void NcclCommunicator::check_nccl(int code, Name name) {
  const auto result = static_cast<ncclResult_t>(code);
  if (result == ncclSuccess || result == ncclInProgress) return;
  const char* detail = ncclGetLastError(comm_);
  fail(name, fmt::format("NCCL: {}{}{}", ncclGetErrorString(result), detail && *detail ? ": " : "",
                         detail ? detail : ""));
}

void NcclCommunicator::fail(Name name, const std::string& cause) {
  const std::string message =
      fmt::format("{}{} failed on rank {} (host {}, device {}): {}", name.operation,
                  name.sequence >= 0 ? fmt::format(" #{}", name.sequence) : std::string(),
                  world_.rank, host_, device_, cause);
  abort();
  throw PeerError(message);
}

// By a thread of its own, for ncclCommAbort can hang: then the process ends with the thread in it.
void NcclCommunicator::abort() {
  if (!comm_) return;
  std::promise<void> ended;
  std::future<void> end = ended.get_future();
  const auto body = [device = device_](ncclComm_t comm, std::promise<void> promise) {
    cudaSetDevice(device);
    ncclCommAbort(comm);
    promise.set_value();
  };
  try {
    std::thread(body, std::exchange(comm_, nullptr), std::move(ended)).detach();
  } catch (const std::system_error&) {
    return;  // no thread to be had: the process ends all the same
  }
  const Clock::time_point deadline = Clock::now() + kAbortGrace;
  while (end.wait_for(kAbortGrace / 30) != std::future_status::ready && Clock::now() < deadline) {
    heartbeat();  // the watchdog would end the process before it has said why
  }
}

void NcclCommunicator::all_reduce(const void* in, void* out, int64_t count, DataType type,
                                  Reduction reduction, Stream stream) {
  const Call call(*this, "all_reduce", stream);
  call.check_count(count);
  if (count == 0) return;
  call.issue([&](auto&& add) {
    add(ncclAllReduce(in, out, static_cast<size_t>(count), nccl_type(type), nccl_op(reduction),
                      comm_, call.stream()));
  });
}

void NcclCommunicator::reduce_scatter(const void* in, void* out, int64_t count, DataType type,
                                      Reduction reduction, Stream stream) {
  const Call call(*this, "reduce_scatter", stream);
  call.check_count(count);
  KT_CHECK(in != out || world_.size == 1 || count == 0,
           "reduce_scatter #{}: in == out, but their sizes differ", sequence_);
  if (count == 0) return;
  call.issue([&](auto&& add) {
    add(ncclReduceScatter(in, out, static_cast<size_t>(count), nccl_type(type), nccl_op(reduction),
                          comm_, call.stream()));
  });
}

void NcclCommunicator::all_gather(const void* in, void* out, std::span<const int64_t> counts,
                                  DataType type, Stream stream) {
  const Call call(*this, "all_gather", stream);
  call.check_size(counts);
  const std::vector<int64_t> begin = part_offsets(counts);
  if (begin.back() == 0) return;
  const bool even = std::all_of(counts.begin(), counts.end(),
                                [&](int64_t count) { return count == counts.front(); });
  call.issue([&](auto&& add) {
    if (even) {
      add(ncclAllGather(in, out, static_cast<size_t>(counts.front()), nccl_type(type), comm_,
                        call.stream()));
      return;
    }
    for (int root = 0; root < world_.size; ++root) {
      const auto r = static_cast<size_t>(root);
      if (counts[r] == 0) continue;
      std::byte* part = element_at(out, begin[r], type);
      add(ncclBroadcast(root == world_.rank ? in : part, part, static_cast<size_t>(counts[r]),
                        nccl_type(type), root, comm_, call.stream()));
    }
  });
}

void NcclCommunicator::broadcast(void* data, int64_t count, DataType type, int root,
                                 Stream stream) {
  const Call call(*this, "broadcast", stream);
  call.check_count(count);
  KT_CHECK(root >= 0 && root < world_.size, "broadcast #{}: root {} of {}", sequence_, root,
           world_.size);
  if (count == 0) return;
  call.issue([&](auto&& add) {
    add(ncclBroadcast(data, data, static_cast<size_t>(count), nccl_type(type), root, comm_,
                      call.stream()));
  });
}

void NcclCommunicator::all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                                  std::span<const int64_t> receive_counts, DataType type,
                                  Stream stream) {
  const Call call(*this, "all_to_all", stream);
  call.check_size(send_counts);
  call.check_size(receive_counts);
  const std::vector<int64_t> send_begin = part_offsets(send_counts);
  const std::vector<int64_t> receive_begin = part_offsets(receive_counts);
  const auto own = static_cast<size_t>(world_.rank);
  KT_CHECK(send_counts[own] == receive_counts[own],
           "all_to_all #{}: rank {} sends itself {}, receives {}", sequence_, world_.rank,
           send_counts[own], receive_counts[own]);
  KT_CHECK(in != out || send_begin.back() == 0, "all_to_all #{}: in == out", sequence_);

  call.begin();
  if (send_counts[own] > 0) {
    call.check_cuda(cudaMemcpyAsync(element_at(out, receive_begin[own], type),
                                    element_at(in, send_begin[own], type),
                                    static_cast<size_t>(send_counts[own] * size_in_bytes(type)),
                                    cudaMemcpyDeviceToDevice, call.stream()));
  }
  call.group([&](auto&& add) {
    for (int i = 1; i < world_.size; ++i) {
      const int to = (world_.rank + i) % world_.size;
      const int from = (world_.rank + world_.size - i) % world_.size;
      const auto t = static_cast<size_t>(to), f = static_cast<size_t>(from);
      if (send_counts[t] > 0) {
        add(ncclSend(element_at(in, send_begin[t], type), static_cast<size_t>(send_counts[t]),
                     nccl_type(type), to, comm_, call.stream()));
      }
      if (receive_counts[f] > 0) {
        add(ncclRecv(element_at(out, receive_begin[f], type),
                     static_cast<size_t>(receive_counts[f]), nccl_type(type), from, comm_,
                     call.stream()));
      }
    }
  });
  call.end();
}

void NcclCommunicator::barrier() {
  const Call call(*this, "barrier", {});
  call.issue([&](auto&& add) {
    add(ncclAllReduce(arrived_, arrived_, 1, ncclInt32, ncclMax, comm_, stream_));
  });
  cudaError_t code = cudaErrorNotReady;
  wait(call.name(), [&](ncclResult_t) { return is_done(code = cudaStreamQuery(stream_)); });
  check_cuda(code, oldest(call.name()));
}

void NcclCommunicator::synchronize(Stream stream) {
  const Name name{"synchronize"};
  const Phase phase(name.operation);
  KT_CHECK(comm_, "synchronize: NCCL has ended");
  auto* waited = stream.handle ? static_cast<cudaStream_t>(stream.handle) : stream_;
  cudaError_t code = cudaErrorNotReady;
  wait(name, [&](ncclResult_t) { return is_done(code = cudaStreamQuery(waited)); });
  check_cuda(code, oldest(name));
}

void NcclCommunicator::finish() {
  KT_CHECK(comm_, "NCCL is ended twice");
  const Name name{"end of NCCL"};
  const Phase phase(name.operation);
  cudaError_t code = cudaErrorNotReady;
  wait(name,
       [&](ncclResult_t) { return issued_.empty() && is_done(code = cudaStreamQuery(stream_)); });
  check_cuda(code, name);
  check_nccl(ncclCommFinalize(comm_), {"ncclCommFinalize"});
  wait({"ncclCommFinalize"}, [](ncclResult_t state) { return state == ncclSuccess; });
  check_nccl(ncclCommDestroy(std::exchange(comm_, nullptr)), {"ncclCommDestroy"});
  for (cudaEvent_t event : idle_events_) check_cuda(cudaEventDestroy(event), name);
  idle_events_.clear();
  check_cuda(cudaFree(std::exchange(arrived_, nullptr)), name);
  check_cuda(cudaStreamDestroy(std::exchange(stream_, nullptr)), name);
}

}  // namespace kt
