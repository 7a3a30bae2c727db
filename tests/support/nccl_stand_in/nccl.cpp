#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <utility>

#include "tests/support/nccl_stand_in/device.h"

using kt::stand_in::Device;

// The device's thread speaks MPI beside the main thread.
extern "C" int MPI_Init_thread(int* argc, char*** argv, int, int* provided) {
  const int code = PMPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, provided);
  if (code != MPI_SUCCESS || *provided != MPI_THREAD_MULTIPLE) return MPI_ERR_OTHER;
  MPI_Comm_dup(MPI_COMM_WORLD, &Device::get().comm);
  return MPI_Comm_set_errhandler(Device::get().comm, MPI_ERRORS_RETURN);
}

extern "C" int MPI_Finalize() {
  Device::get().stop();
  return PMPI_Finalize();
}

// What follows is guarded by the device's mutex.
struct ncclComm {
  int rank = 0, size = 0, context = 0;
  std::vector<int> members;  // of MPI's world
  ncclResult_t state = ncclInProgress;
  std::string error;
  kt::stand_in::Queue threads;  // NCCL's own
  int64_t collectives = 0;
  std::vector<int64_t> sent, received;
  int64_t unfinished = 0;
  bool aborted = false, finalized = false;

  void fail(ncclResult_t with, std::string text) {
    state = with;
    error = std::move(text);
  }
};

namespace {

enum class Message { kMeeting, kCollective, kPair };

int tag(int context, Message message, int64_t number) {
  return (context << 22) | (static_cast<int>(message) << 20) | static_cast<int>(number & 0xfffff);
}

// Messages under way.
struct Transfer {
  void send(const void* data, size_t bytes, int to, int message_tag) {
    check(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, message_tag, Device::get().comm,
                    &requests.emplace_back(MPI_REQUEST_NULL)));
  }
  void receive(void* data, size_t bytes, int from, int message_tag) {
    check(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, message_tag, Device::get().comm,
                    &requests.emplace_back(MPI_REQUEST_NULL)));
  }
  bool done() {
    int all = 0;
    check(
        MPI_Testall(static_cast<int>(requests.size()), requests.data(), &all, MPI_STATUSES_IGNORE));
    return all != 0;
  }
  void check(int code) { failed = failed || code != MPI_SUCCESS; }

  std::vector<MPI_Request> requests;
  bool failed = false;
};

enum class Kind { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kSend, kReceive };

size_t size_of(ncclDataType_t type) {
  return type == ncclUint8 ? 1 : type == ncclInt32 || type == ncclFloat32 ? 4 : 8;
}

template <class T>
void combine(T* into, const T* other, size_t count, ncclRedOp_t op) {
  for (size_t i = 0; i < count; ++i) {
    into[i] = op == ncclSum   ? static_cast<T>(into[i] + other[i])
              : op == ncclMin ? std::min(into[i], other[i])
                              : std::max(into[i], other[i]);
  }
}

void combine(void* into, const void* other, size_t count, ncclDataType_t type, ncclRedOp_t op) {
  const auto as = [&]<class T>(T) {
    combine(static_cast<T*>(into), static_cast<const T*>(other), count, op);
  };
  switch (type) {
    case ncclUint8:
      return as(uint8_t{});
    case ncclInt32:
      return as(int32_t{});
    case ncclInt64:
      return as(int64_t{});
    case ncclUint64:
      return as(uint64_t{});
    case ncclFloat32:
      return as(float{});
    case ncclFloat64:
      return as(double{});
  }
}

// One NCCL call. Every rank sends to every other what that one needs, and combines in rank order.
struct Operation {
  ncclComm* comm;
  cudaStream_t stream;
  Kind kind;
  const void* in;
  void* out;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op = ncclSum;
  int peer = 0;  // or root
  int message_tag = 0;
  Transfer transfer = {};
  std::vector<std::vector<std::byte>> parts = {};

  size_t bytes() const { return count * size_of(type); }
  const std::byte* in_part(int r) const {
    const auto* begin = static_cast<const std::byte*>(in);
    return kind == Kind::kReduceScatter ? begin + static_cast<size_t>(r) * bytes() : begin;
  }
  bool buffers_are_on_device() const {
    const Device& device = Device::get();
    const auto ranks = static_cast<size_t>(comm->size);
    const size_t in_bytes = kind == Kind::kReduceScatter ? ranks * bytes() : bytes();
    const size_t out_bytes = kind == Kind::kAllGather ? ranks * bytes() : bytes();
    const bool reads = kind == Kind::kBroadcast ? peer == comm->rank : kind != Kind::kReceive;
    return (!reads || device.owns(in, in_bytes)) &&
           (kind == Kind::kSend || device.owns(out, out_bytes));
  }

  void start() {
    const int rank = comm->rank;
    const auto member = [&](int r) { return comm->members[static_cast<size_t>(r)]; };
    if (kind == Kind::kSend) return transfer.send(in, bytes(), member(peer), message_tag);
    if (kind == Kind::kReceive) return transfer.receive(out, bytes(), member(peer), message_tag);
    parts.resize(static_cast<size_t>(comm->size));
    for (int r = 0; r < comm->size; ++r) {
      if (r == rank) continue;
      if (kind != Kind::kBroadcast || peer == rank) {
        transfer.send(in_part(r), bytes(), member(r), message_tag);
      }
      if (kind != Kind::kBroadcast || peer == r) {
        auto& part = parts[static_cast<size_t>(r)];
        part.resize(bytes());
        transfer.receive(part.data(), bytes(), member(r), message_tag);
      }
    }
  }

  void finish() {
    if (kind == Kind::kSend || kind == Kind::kReceive) return;
    auto& own = parts[static_cast<size_t>(comm->rank)];
    if (kind != Kind::kBroadcast || peer == comm->rank) {
      own.assign(in_part(comm->rank), in_part(comm->rank) + bytes());
    }
    auto* result = static_cast<std::byte*>(out);
    if (kind == Kind::kBroadcast) {
      std::ranges::copy(parts[static_cast<size_t>(peer)], result);
    } else if (kind == Kind::kAllGather) {
      for (const auto& part : parts) {
        result = std::ranges::copy(part, result).out;
      }
    } else {
      for (size_t r = 1; r < parts.size(); ++r) {
        combine(parts[0].data(), parts[r].data(), count, type, op);
      }
      std::ranges::copy(parts[0], result);
    }
  }
};

using Group = std::vector<std::shared_ptr<Operation>>;

struct OpenGroup {
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  Group operations;
} open_group;

// The operations of a group run at one time.
bool run_group(ncclComm* comm, const Group& group, int64_t number, bool& started) {
  Device& device = Device::get();
  if (comm->aborted) return true;
  if (number == device.faults.hang_at) return false;
  if (number == device.faults.async_error_at) {
    if (comm->state == ncclSuccess) comm->fail(ncclRemoteError, "connection closed by its peer");
    return false;
  }
  if (!std::exchange(started, true)) {
    for (const auto& operation : group) operation->start();
  }
  bool done = true;
  for (const auto& operation : group) {
    done = operation->transfer.done() && done;
    if (operation->transfer.failed) {
      comm->fail(ncclRemoteError, "MPI failed under the stand-in");
      return false;
    }
  }
  if (!done) return false;
  for (const auto& operation : group) operation->finish();
  --comm->unfinished;
  if (number == device.faults.device_fails_at) device.broken = true;
  return true;
}

ncclResult_t issue(Group group) {
  Device& device = Device::get();
  if (group.empty()) return ncclSuccess;
  ncclComm* comm = group.front()->comm;
  for (const auto& operation : group) {
    if (operation->comm != comm || operation->stream != group.front()->stream) {
      return ncclInvalidUsage;
    }
  }
  comm->state = ncclInProgress;
  ++comm->unfinished;
  const int64_t number = ++device.collectives;
  // The last moment NCCL may take: after the call has returned.
  device.push(comm->threads, [comm, number, group = std::move(group)] {
    Device::get().push(*group.front()->stream, [comm, number, group, started = false]() mutable {
      return run_group(comm, group, number, started);
    });
    if (comm->state == ncclInProgress) comm->state = ncclSuccess;
    return true;
  });
  return ncclInProgress;
}

ncclResult_t add(const char* name, Operation operation) {
  Device& device = Device::get();
  const auto guard = device.lock();
  device.calls.emplace_back(name);
  ncclComm* comm = operation.comm;
  ncclResult_t result = ncclSuccess;
  if (!comm || !operation.stream) {
    result = ncclInvalidArgument;
  } else if (comm->state != ncclSuccess) {
    comm->error = "used before the call before it was issued";
    result = ncclInvalidArgument;
  } else if (operation.bytes() > INT_MAX || !operation.buffers_are_on_device()) {
    comm->error = "a buffer is not in the device's memory";
    result = ncclInvalidArgument;
  }
  if (result != ncclSuccess) {
    if (open_group.depth > 0 && open_group.error == ncclSuccess) open_group.error = result;
    return result;
  }
  const auto peer = static_cast<size_t>(operation.peer);
  operation.message_tag = operation.kind == Kind::kSend
                              ? tag(comm->context, Message::kPair, comm->sent[peer]++)
                          : operation.kind == Kind::kReceive
                              ? tag(comm->context, Message::kPair, comm->received[peer]++)
                              : tag(comm->context, Message::kCollective, comm->collectives++);
  auto shared = std::make_shared<Operation>(std::move(operation));
  if (open_group.depth == 0) return issue({shared});
  open_group.operations.push_back(shared);
  return ncclInProgress;
}

// Rank 0 made the id: everyone tells it where they are, it tells everyone.
struct Meeting {
  ncclComm* comm;
  int root, self;
  Transfer transfer = {};
  std::vector<std::array<int, 2>> arrivals = {};
  std::array<int, 2> own = {};
  bool started = false, telling = false;

  bool step() {
    const Device& device = Device::get();
    if (comm->aborted) return true;
    if (device.faults.init_hangs) return false;
    if (device.faults.init_fails) {
      comm->fail(ncclSystemError, "no network interface");
      return true;
    }
    const auto ranks = static_cast<size_t>(comm->size);
    const int arriving = tag(comm->context, Message::kMeeting, 0);
    const int table = tag(comm->context, Message::kMeeting, 1);
    if (!std::exchange(started, true)) {
      own = {comm->rank, self};
      comm->members.resize(ranks);
      if (self == root) {
        arrivals.resize(ranks, own);
        for (size_t i = 1; i < ranks; ++i) {
          transfer.receive(&arrivals[i], sizeof own, MPI_ANY_SOURCE, arriving);
        }
      } else {
        transfer.send(&own, sizeof own, root, arriving);
        transfer.receive(comm->members.data(), ranks * sizeof(int), root, table);
      }
    }
    if (!transfer.done()) return false;
    if (self == root && !std::exchange(telling, true)) {
      for (const auto& [rank, member] : arrivals) comm->members[static_cast<size_t>(rank)] = member;
      for (const int member : comm->members) {
        if (member != self) {
          transfer.send(comm->members.data(), ranks * sizeof(int), member, table);
        }
      }
      return false;
    }
    comm->state = ncclSuccess;
    return true;
  }
};

}  // namespace

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* kTexts[] = {"no error",
                                    "unhandled cuda error",
                                    "system error",
                                    "internal error",
                                    "invalid argument",
                                    "invalid usage",
                                    "remote process exited or there was a network error",
                                    "in progress"};
  return kTexts[result];
}

const char* ncclGetLastError(ncclComm_t comm) { return comm ? comm->error.c_str() : ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  Device& device = Device::get();
  const auto guard = device.lock();
  device.calls.emplace_back("ncclGetUniqueId");
  static int made = 0;
  int self = 0;
  MPI_Comm_rank(device.comm, &self);
  const int words[] = {self, made++};
  std::memcpy(id->internal, words, sizeof words);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  Device& device = Device::get();
  const auto guard = device.lock();
  device.calls.emplace_back("ncclCommInitRankConfig");
  if (config->blocking != 0) return ncclInvalidUsage;
  int words[2];
  std::memcpy(words, id.internal, sizeof words);
  const auto [root, number] = words;
  auto* made = new ncclComm;
  made->rank = rank;
  made->size = size;
  made->context = (16 * root + number % 16) % 256;
  made->sent.resize(static_cast<size_t>(size));
  made->received.resize(static_cast<size_t>(size));
  made->threads.on_device = false;
  *comm = made;
  int self = 0;
  MPI_Comm_rank(device.comm, &self);
  device.add(&made->threads);
  ++device.objects;
  const auto meeting = std::make_shared<Meeting>(Meeting{made, root, self});
  device.push(made->threads, [meeting] { return meeting->step(); });
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const auto guard = Device::get().lock();
  *state = comm->state;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  Device& device = Device::get();
  const auto guard = device.lock();
  device.calls.emplace_back("ncclCommFinalize");
  if (comm->state != ncclSuccess || comm->finalized) return ncclInvalidUsage;
  comm->state = ncclInProgress;
  device.push(comm->threads, [comm] {
    if (comm->aborted) return true;
    if (Device::get().faults.finalize_hangs || comm->unfinished > 0) return false;
    comm->finalized = true;
    comm->state = ncclSuccess;
    return true;
  });
  return ncclInProgress;
}

// Stricter than the real one: only after ncclCommFinalize has ended.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  Device& device = Device::get();
  const auto guard = device.lock();
  device.calls.emplace_back("ncclCommDestroy");
  if (!comm->finalized) return ncclInvalidUsage;
  device.remove(&comm->threads);
  delete comm;
  --device.objects;
  return ncclSuccess;
}

// What is under way may still touch the communicator: it stays, and the process is about to end.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  Device& device = Device::get();
  auto guard = device.lock();
  device.calls.emplace_back("ncclCommAbort");
  comm->aborted = true;
  device.wake();
  if (device.faults.abort_hangs) {
    guard.unlock();
    for (;;) pause();
  }
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  const auto guard = Device::get().lock();
  Device::get().calls.emplace_back("ncclGroupStart");
  ++open_group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const auto guard = Device::get().lock();
  Device::get().calls.emplace_back("ncclGroupEnd");
  if (open_group.depth == 0) return ncclInvalidUsage;
  if (--open_group.depth > 0) return ncclSuccess;
  const OpenGroup closed = std::exchange(open_group, {});
  return closed.error == ncclSuccess ? issue(closed.operations) : closed.error;
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return add("ncclAllReduce", {comm, stream, Kind::kAllReduce, in, out, count, type, op});
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return add("ncclReduceScatter", {comm, stream, Kind::kReduceScatter, in, out, count, type, op});
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return add("ncclAllGather", {comm, stream, Kind::kAllGather, in, out, count, type});
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return add("ncclBroadcast",
             {comm, stream, Kind::kBroadcast, in, out, count, type, ncclSum, root});
}

ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add("ncclSend", {comm, stream, Kind::kSend, in, nullptr, count, type, ncclSum, peer});
}

ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add("ncclRecv", {comm, stream, Kind::kReceive, nullptr, out, count, type, ncclSum, peer});
}
