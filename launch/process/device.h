#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/host_device.h"
#include "launch/base/team.h"
#include "launch/collectives/communicator.h"
#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#else
#include <functional>
#include <memory>
#include <numeric>

#include "launch/base/flush_small.h"
#endif

/// Memory and loops of a device. nvcc makes kernels of the loops. Without it the same bodies run as host
/// functions in stream order, so that what is enqueued, and in which order, runs in tests on any machine. In both,
/// numbers too small for a full mantissa count as 0, as in the CPU's kernels.
namespace kt {

/// Throws: PeerError that names `operation` unless `code` is cudaSuccess.
inline void check_cuda(cudaError_t code, const char* operation) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw PeerError(fmt::format("{} failed: CUDA: {} ({})", operation, cudaGetErrorString(code),
                              cudaGetErrorName(code)));
}

/// Throws: UserError when `code` says that `where` has no room for so many bytes, else as check_cuda.
inline void check_room(cudaError_t code, int64_t bytes, const char* where, const char* operation) {
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    user_error(
        "the {} has no room for another {} bytes: start more ranks, or lower train.global_batch",
        where, bytes);
  }
  check_cuda(code, operation);
}

#ifndef __CUDACC__
/// Where what this thread enqueues goes while a DeviceGraph is made of it.
inline thread_local std::vector<std::function<void()>>* recorded_calls = nullptr;
#endif

/// Every call that enqueues: done now, or with each launch of the graph that is being made.
template <class Call>
void enqueue_call(const Call& call) {
#ifndef __CUDACC__
  if (recorded_calls) return recorded_calls->push_back(call);
#endif
  call();
}

/// A queue of work on the device of this thread. It lives as long as the process: its last work may wait for other
/// ranks.
class DeviceStream {
 public:
  DeviceStream() {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "event");
  }
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  operator cudaStream_t() const { return stream_; }
  Stream handle() const { return {stream_}; }
  /// What is enqueued here from now on runs after what is on `other` so far.
  void wait_for(const DeviceStream& other) {
    enqueue_call([own = stream_, event = event_, before = other.stream_] {
      check_cuda(cudaEventRecord(event, before), "cudaEventRecord");
      check_cuda(cudaStreamWaitEvent(own, event, 0), "cudaStreamWaitEvent");
    });
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

/// Host memory that a device copies from while the host goes on. It may be written again once the stream of the
/// copy has been waited for.
template <class T>
class PinnedArray {
 public:
  /// Not initialised. Throws: UserError when the host has no room.
  explicit PinnedArray(int64_t size) : size_(size) {
    if (size == 0) return;
    void* memory = nullptr;
    const size_t bytes = static_cast<size_t>(size) * sizeof(T);
    check_room(cudaMallocHost(&memory, bytes), static_cast<int64_t>(bytes), "host",
               "cudaMallocHost");
    data_ = static_cast<T*>(memory);
  }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;
  ~PinnedArray() {
    if (data_) static_cast<void>(cudaFreeHost(data_));
  }
  T* data() { return data_; }
  std::span<const T> first(int64_t n) const {
    KT_CHECK(n <= size_);
    return {data_, static_cast<size_t>(n)};
  }

 private:
  T* data_ = nullptr;
  int64_t size_;
};

/// An array in device memory. It is freed when nothing enqueued uses it any more: cudaFree waits for the device.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  /// Not initialised. Throws: UserError when the device has no room.
  explicit DeviceArray(int64_t size) : size_(size) {
    if (size == 0) return;
    void* memory = nullptr;
    check_room(cudaMalloc(&memory, static_cast<size_t>(size_bytes())), size_bytes(), "device",
               "cudaMalloc");
    data_ = static_cast<T*>(memory);
  }
  /// A copy of `host`, which must stay until the stream has been waited for.
  DeviceArray(std::span<const T> host, cudaStream_t stream) : DeviceArray(std::ssize(host)) {
    upload(host, stream);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() {
    if (data_) static_cast<void>(cudaFree(data_));
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t size_bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

  /// Copies to and from `begin`, in stream order; `host` must stay until the stream has been waited for.
  void upload(std::span<const T> host, cudaStream_t stream, int64_t begin = 0) {
    KT_CHECK(begin + std::ssize(host) <= size_);
    if (host.empty()) return;
    check_cuda(cudaMemcpyAsync(data_ + begin, host.data(), host.size_bytes(),
                               cudaMemcpyHostToDevice, stream),
               "cudaMemcpyAsync");
  }
  void download(std::span<T> host, cudaStream_t stream, int64_t begin = 0) const {
    KT_CHECK(begin + std::ssize(host) <= size_);
    if (host.empty()) return;
    check_cuda(cudaMemcpyAsync(host.data(), data_ + begin, host.size_bytes(),
                               cudaMemcpyDeviceToHost, stream),
               "cudaMemcpyAsync");
  }
  void zero(cudaStream_t stream) {
    if (size_ == 0) return;
    enqueue_call([data = data_, bytes = static_cast<size_t>(size_bytes()), stream] {
      check_cuda(cudaMemsetAsync(data, 0, bytes, stream), "cudaMemsetAsync");
    });
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

#ifdef __CUDACC__

template <class Body>
__global__ void run_body(int64_t n, Body body) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < n; k += stride)
    body(k);
}

/// Enqueues body(k) for each k in [0, n), in any order. `body` is copied; it holds device pointers and numbers.
template <class Body>
void for_each(int64_t n, cudaStream_t stream, const Body& body) {
  constexpr int64_t kThreads = 256, kMostBlocks = 1 << 16;
  if (n <= 0) return;
  const auto blocks = static_cast<unsigned>(std::min((n + kThreads - 1) / kThreads, kMostBlocks));
  run_body<<<blocks, static_cast<unsigned>(kThreads), 0, stream>>>(n, body);
  check_cuda(cudaGetLastError(), "kernel launch");
}

/// Threads of a team, and bytes that one may share on the device of this thread.
inline constexpr int kTeamThreads = 512;
inline int64_t most_shared_bytes() {
  int device = 0, bytes = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "cudaDeviceGetAttribute");
  return bytes;
}
/// Of the device of this thread.
inline int processors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return count;
}

template <class Body>
__global__ void __launch_bounds__(kTeamThreads) run_team(Body body) {
  extern __shared__ double shared[];
  body(Team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)},
       static_cast<int64_t>(blockIdx.x), static_cast<void*>(shared));
}

/// Enqueues body(team, k, shared) for each k in [0, teams), in any order, with so many bytes that the team shares and
/// at most kTeamThreads threads each.
template <class Body>
void for_teams(int64_t teams, int threads, int64_t shared_bytes, cudaStream_t stream,
               const Body& body) {
  if (teams <= 0) return;
  check_cuda(cudaFuncSetAttribute(run_team<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)),
             "cudaFuncSetAttribute");
  run_team<<<static_cast<unsigned>(teams), static_cast<unsigned>(threads),
             static_cast<size_t>(shared_bytes), stream>>>(body);
  check_cuda(cudaGetLastError(), "kernel launch");
}

/// Work that is enqueued again and again at the price of one launch.
class DeviceGraph {
 public:
  DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;
  ~DeviceGraph() { forget(); }

  bool made() const { return graph_ != nullptr; }
  /// Of what `enqueue()` puts on `stream`, and on streams that wait for it and that it waits for again. Nothing of it
  /// runs yet; all its arguments are those of now.
  template <class Enqueue>
  void make(cudaStream_t stream, Enqueue&& enqueue) {
    forget();
    stream_ = stream;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    enqueue();
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t code = cudaGraphInstantiate(&graph_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check_cuda(code, "cudaGraphInstantiate");
  }
  void launch() { check_cuda(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }
  void forget() {
    if (graph_) static_cast<void>(cudaGraphExecDestroy(std::exchange(graph_, nullptr)));
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
};

#else

/// Enqueues `work()` on the host.
template <class Work>
void enqueue_host(cudaStream_t stream, const Work& work) {
  enqueue_call([stream, work] {
    auto held = std::make_unique<Work>(work);
    check_cuda(cudaLaunchHostFunc(
                   stream,
                   [](void* data) {
                     const std::unique_ptr<Work> own(static_cast<Work*>(data));
                     (*own)();
                   },
                   held.get()),
               "cudaLaunchHostFunc");
    static_cast<void>(held.release());
  });
}

template <class Body>
void for_each(int64_t n, cudaStream_t stream, const Body& body) {
  if (n <= 0) return;
  enqueue_host(stream, [n, body] {
    const FlushSmall flush;
    for (int64_t k = 0; k < n; ++k) body(k);
  });
}

inline constexpr int kTeamThreads = 1;
/// That of a device of compute capability 9.0.
inline int64_t most_shared_bytes() { return 227 * 1024; }
inline int processors() { return 2; }

template <class Body>
void for_teams(int64_t teams, int, int64_t shared_bytes, cudaStream_t stream, const Body& body) {
  if (teams <= 0) return;
  enqueue_host(stream, [teams, shared_bytes, body] {
    const FlushSmall flush;
    std::vector<double> shared(static_cast<size_t>(shared_bytes) / sizeof(double) + 1);
    for (int64_t k = 0; k < teams; ++k) body(Team{}, k, static_cast<void*>(shared.data()));
  });
}

class DeviceGraph {
 public:
  DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  bool made() const { return !calls_.empty(); }
  template <class Enqueue>
  void make(cudaStream_t, Enqueue&& enqueue) {
    forget();
    recorded_calls = &calls_;
    enqueue();
    recorded_calls = nullptr;
  }
  void launch() {
    for (const std::function<void()>& call : calls_) call();
  }
  void forget() { calls_.clear(); }

 private:
  std::vector<std::function<void()>> calls_;
};

#endif

/// Stable sorts of (key, value) pairs by key, up to `most` of them; keys in [0, key_end).
template <class Key>
class PairSort {
 public:
  PairSort() = default;
  PairSort(int64_t most, int64_t key_end) : sorted_keys_(most), sorted_values_(most) {
    while (bits_ < 8 * static_cast<int>(sizeof(Key)) - 1 && (int64_t{1} << bits_) < key_end)
      ++bits_;
#ifdef __CUDACC__
    size_t bytes = 0;
    check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, bytes, sorted_keys_.data(),
                                               sorted_keys_.data(), sorted_values_.data(),
                                               sorted_values_.data(), most, 0, bits_),
               "radix sort");
    scratch_ = DeviceArray<uint8_t>(static_cast<int64_t>(bytes));
#endif
  }

  int64_t most() const { return sorted_keys_.size(); }
  /// Shapes: keys, values [n].
  void sort(const Key* keys, const int32_t* values, int64_t n, cudaStream_t stream) {
    KT_CHECK(n <= most());
    if (n == 0) return;
#ifdef __CUDACC__
    auto bytes = static_cast<size_t>(scratch_.size());
    check_cuda(cub::DeviceRadixSort::SortPairs(scratch_.data(), bytes, keys, sorted_keys_.data(),
                                               values, sorted_values_.data(), n, 0, bits_, stream),
               "radix sort");
#else
    enqueue_host(stream, [=, to_keys = sorted_keys_.data(), to_values = sorted_values_.data()] {
      std::vector<int64_t> order(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
      for (int64_t k = 0; k < n; ++k) {
        to_keys[k] = keys[order[k]];
        to_values[k] = values[order[k]];
      }
    });
#endif
  }
  const Key* keys() const { return sorted_keys_.data(); }
  const int32_t* values() const { return sorted_values_.data(); }

 private:
  DeviceArray<Key> sorted_keys_;
  DeviceArray<int32_t> sorted_values_;
  DeviceArray<uint8_t> scratch_;
  int bits_ = 1;
};

/// to[k] = the sum of the first k of up to `most` numbers.
class PrefixSum {
 public:
  PrefixSum() = default;
  explicit PrefixSum(int64_t most) : most_(most) {
#ifdef __CUDACC__
    size_t bytes = 0;
    int32_t* none = nullptr;
    check_cuda(cub::DeviceScan::ExclusiveSum(nullptr, bytes, none, none, most), "scan");
    scratch_ = DeviceArray<uint8_t>(static_cast<int64_t>(bytes));
#endif
  }
  /// Shapes: from, to [n].
  void sum(const int32_t* from, int32_t* to, int64_t n, cudaStream_t stream) {
    KT_CHECK(n <= most_);
    if (n == 0) return;
#ifdef __CUDACC__
    auto bytes = static_cast<size_t>(scratch_.size());
    check_cuda(cub::DeviceScan::ExclusiveSum(scratch_.data(), bytes, from, to, n, stream), "scan");
#else
    enqueue_host(stream, [=] { std::exclusive_scan(from, from + n, to, 0); });
#endif
  }

 private:
  int64_t most_ = 0;
  DeviceArray<uint8_t> scratch_;
};

}  // namespace kt
