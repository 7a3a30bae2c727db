#pragma once

#include <cstdint>
#include <span>

/// The collectives of a run. One interface, two forms: MPI on host memory (launch/collectives/mpi_communicator.h), NCCL
/// on device memory.
namespace kt {

/// Who am I: `rank` of `size`. Passed as data, so that one process can play any rank in a test.
struct World {
  int rank = 0;
  int size = 1;
};

enum class DataType { kUint8, kInt32, kInt64, kUint64, kFloat32, kFloat64 };
enum class Reduction { kSum, kMin, kMax };

/// Size of one element. Units: bytes.
constexpr int64_t size_in_bytes(DataType type) {
  switch (type) {
    case DataType::kUint8:
      return 1;
    case DataType::kInt32:
    case DataType::kFloat32:
      return 4;
    default:
      return 8;
  }
}

template <class T>
struct DataTypeOf;
template <>
struct DataTypeOf<uint8_t> {
  static constexpr DataType value = DataType::kUint8;
};
template <>
struct DataTypeOf<int32_t> {
  static constexpr DataType value = DataType::kInt32;
};
template <>
struct DataTypeOf<int64_t> {
  static constexpr DataType value = DataType::kInt64;
};
template <>
struct DataTypeOf<uint64_t> {
  static constexpr DataType value = DataType::kUint64;
};
template <>
struct DataTypeOf<float> {
  static constexpr DataType value = DataType::kFloat32;
};
template <>
struct DataTypeOf<double> {
  static constexpr DataType value = DataType::kFloat64;
};

/// A queue of work on a device (a `cudaStream_t`), null on the host. A collective on a stream is enqueued:
/// its buffers belong to it until `synchronize(stream)` returns or later work on that stream runs.
struct Stream {
  void* handle = nullptr;
};

/// Collectives over all ranks of a run.
///
/// Counts are elements, not bytes, and may exceed 2^31. Buffers are host or device pointers, as the form
/// says; `in` and `out` may be equal where the sizes are. Zero counts are legal, and such a call is still
/// reached by all ranks. Every call is numbered; the watchdog names that number.
/// Collective: every method but `world`; all ranks, in one order, from one thread.
/// Throws: PeerError (operation, sequence number, cause) when a peer or the network fails.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual World world() const = 0;

  /// Shapes: in, out [count].
  virtual void all_reduce(const void* in, void* out, int64_t count, DataType, Reduction,
                          Stream = {}) = 0;
  /// Shapes: in [size * count], out [count]: rank r receives the sum of everyone's r-th part.
  virtual void reduce_scatter(const void* in, void* out, int64_t count, DataType, Reduction,
                              Stream = {}) = 0;
  /// Shapes: in [counts[rank]], out [sum of counts], in rank order; `counts` equal on all ranks.
  virtual void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType,
                          Stream = {}) = 0;
  /// Shapes: data [count]; overwritten on every rank but `root`.
  virtual void broadcast(void* data, int64_t count, DataType, int root, Stream = {}) = 0;
  /// Shapes: in [sum of send_counts], out [sum of receive_counts], both in rank order; what r sends to s
  /// must equal what s receives from r.
  virtual void all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                          std::span<const int64_t> receive_counts, DataType, Stream = {}) = 0;
  /// Waits until all ranks have arrived.
  virtual void barrier() = 0;
  /// Waits until the work enqueued on `stream` is done; on the host there is nothing to wait for.
  virtual void synchronize(Stream) = 0;

  /// Typed forms.
  template <class T>
  void all_reduce(std::span<T> data, Reduction reduction) {
    all_reduce(data.data(), data.data(), static_cast<int64_t>(data.size()), DataTypeOf<T>::value,
               reduction);
  }
  template <class T>
  void all_gather(std::span<const T> in, std::span<T> out, std::span<const int64_t> counts) {
    all_gather(in.data(), out.data(), counts, DataTypeOf<T>::value);
  }
  template <class T>
  void broadcast(std::span<T> data, int root) {
    broadcast(data.data(), static_cast<int64_t>(data.size()), DataTypeOf<T>::value, root);
  }
  template <class T>
  void all_to_all(std::span<const T> in, std::span<const int64_t> send_counts, std::span<T> out,
                  std::span<const int64_t> receive_counts) {
    all_to_all(in.data(), send_counts, out.data(), receive_counts, DataTypeOf<T>::value);
  }
};

}  // namespace kt
