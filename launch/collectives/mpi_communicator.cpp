#include "launch/collectives/mpi_communicator.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "launch/base/errors.h"
#include "launch/collectives/part_offsets.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr int64_t kTags = 32768;  // that every MPI has

MPI_Datatype mpi_type(DataType type) {
  switch (type) {
    case DataType::kUint8:
      return MPI_UINT8_T;
    case DataType::kInt32:
      return MPI_INT32_T;
    case DataType::kInt64:
      return MPI_INT64_T;
    case DataType::kUint64:
      return MPI_UINT64_T;
    case DataType::kFloat32:
      return MPI_FLOAT;
    case DataType::kFloat64:
      return MPI_DOUBLE;
  }
  KT_CHECK(false, "data type {}", static_cast<int>(type));
  return MPI_DATATYPE_NULL;
}

MPI_Op mpi_op(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return MPI_SUM;
    case Reduction::kMin:
      return MPI_MIN;
    case Reduction::kMax:
      return MPI_MAX;
  }
  KT_CHECK(false, "reduction {}", static_cast<int>(reduction));
  return MPI_OP_NULL;
}

// The one place where a 64-bit count becomes MPI's int.
int to_int(int64_t count) {
  KT_CHECK(count >= 0 && count <= INT_MAX, "count {}", count);
  return static_cast<int>(count);
}

void copy(const void* in, void* out, int64_t count, DataType type) {
  if (count > 0 && in != out) {
    std::memmove(out, in, static_cast<size_t>(count * size_in_bytes(type)));
  }
}

// Calls `piece(begin, count)` for each stretch of at most `limit` of `count` elements.
template <class Piece>
void cut(int64_t count, int64_t limit, Piece&& piece) {
  for (int64_t begin = 0; begin < count; begin += limit) {
    piece(begin, to_int(std::min(limit, count - begin)));
  }
}

}  // namespace

void check_mpi(int code, const char* operation, int64_t sequence) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0, rank = 0;
  MPI_Error_string(code, text, &length);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  throw PeerError(fmt::format("{}{} failed on rank {}: {}", operation,
                              sequence >= 0 ? fmt::format(" #{}", sequence) : std::string(), rank,
                              std::string_view(text, static_cast<size_t>(length))));
}

// One collective: numbered, known to the watchdog, its return codes checked.
class MpiCommunicator::Call {
 public:
  Call(MpiCommunicator& owner, const char* operation, Stream stream)
      : operation_(operation), sequence_(++owner.sequence_), phase_(operation, sequence_) {
    KT_CHECK(stream.handle == nullptr, "{} #{}: MPI has no streams", operation, sequence_);
  }
  void check(int code) const { check_mpi(code, operation_, sequence_); }
  void check_count(int64_t count) const {
    KT_CHECK(count >= 0, "{} #{}: count {}", operation_, sequence_, count);
  }
  void check_size(std::span<const int64_t> counts, World world) const {
    KT_CHECK(static_cast<int>(counts.size()) == world.size, "{} #{}: {} counts for {} ranks",
             operation_, sequence_, counts.size(), world.size);
  }

 private:
  const char* operation_;
  int64_t sequence_;
  Phase phase_;
};

MpiCommunicator::MpiCommunicator(MPI_Comm parent, int max_count) : max_count_(max_count) {
  KT_CHECK(max_count > 0, "max_count {}", max_count);
  const Phase phase("MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &world_.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &world_.size), "MPI_Comm_size");
}

void MpiCommunicator::all_reduce(const void* in, void* out, int64_t count, DataType type,
                                 Reduction reduction, Stream stream) {
  const Call call(*this, "all_reduce", stream);
  call.check_count(count);
  cut(count, max_count_, [&](int64_t begin, int n) {
    const void* from = in == out ? MPI_IN_PLACE : element_at(in, begin, type);
    call.check(MPI_Allreduce(from, element_at(out, begin, type), n, mpi_type(type),
                             mpi_op(reduction), comm_));
  });
}

void MpiCommunicator::reduce_scatter(const void* in, void* out, int64_t count, DataType type,
                                     Reduction reduction, Stream stream) {
  const Call call(*this, "reduce_scatter", stream);
  call.check_count(count);
  KT_CHECK(in != out || world_.size == 1 || count == 0,
           "reduce_scatter #{}: in == out, but their sizes differ", sequence_);
  if (world_.size == 1) return copy(in, out, count, type);
  if (count <= max_count_ / world_.size) {
    call.check(
        MPI_Reduce_scatter_block(in, out, to_int(count), mpi_type(type), mpi_op(reduction), comm_));
    return;
  }
  // The parts of one piece do not lie together, so each rank's part is reduced by itself.
  for (int root = 0; root < world_.size; ++root) {
    cut(count, max_count_, [&](int64_t begin, int n) {
      call.check(MPI_Reduce(element_at(in, root * count + begin, type),
                            element_at(out, begin, type), n, mpi_type(type), mpi_op(reduction),
                            root, comm_));
    });
  }
}

void MpiCommunicator::all_gather(const void* in, void* out, std::span<const int64_t> counts,
                                 DataType type, Stream stream) {
  const Call call(*this, "all_gather", stream);
  call.check_size(counts, world_);
  const std::vector<int64_t> begin = part_offsets(counts);
  const auto own = static_cast<size_t>(world_.rank);
  copy(in, element_at(out, begin[own], type), counts[own], type);
  if (begin.back() <= max_count_) {
    std::vector<int> n(counts.size()), displacement(counts.size());
    std::transform(counts.begin(), counts.end(), n.begin(), to_int);
    std::transform(begin.begin(), begin.end() - 1, displacement.begin(), to_int);
    call.check(MPI_Allgatherv(MPI_IN_PLACE, 0, mpi_type(type), out, n.data(), displacement.data(),
                              mpi_type(type), comm_));
    return;
  }
  // MPI's displacements are ints as well: one broadcast a rank.
  for (int root = 0; root < world_.size; ++root) {
    const auto r = static_cast<size_t>(root);
    cut(counts[r], max_count_, [&](int64_t first, int n) {
      call.check(
          MPI_Bcast(element_at(out, begin[r] + first, type), n, mpi_type(type), root, comm_));
    });
  }
}

void MpiCommunicator::broadcast(void* data, int64_t count, DataType type, int root, Stream stream) {
  const Call call(*this, "broadcast", stream);
  call.check_count(count);
  KT_CHECK(root >= 0 && root < world_.size, "broadcast #{}: root {} of {}", sequence_, root,
           world_.size);
  cut(count, max_count_, [&](int64_t begin, int n) {
    call.check(MPI_Bcast(element_at(data, begin, type), n, mpi_type(type), root, comm_));
  });
}

void MpiCommunicator::all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                                 std::span<const int64_t> receive_counts, DataType type,
                                 Stream stream) {
  const Call call(*this, "all_to_all", stream);
  call.check_size(send_counts, world_);
  call.check_size(receive_counts, world_);
  const std::vector<int64_t> send_begin = part_offsets(send_counts);
  const std::vector<int64_t> receive_begin = part_offsets(receive_counts);
  const auto own = static_cast<size_t>(world_.rank);
  KT_CHECK(send_counts[own] == receive_counts[own],
           "all_to_all #{}: rank {} sends itself {}, "
           "receives {}",
           sequence_, world_.rank, send_counts[own], receive_counts[own]);

  std::vector<std::byte> copied;
  if (in == out && world_.size > 1) {
    const auto* bytes = static_cast<const std::byte*>(in);
    copied.assign(bytes, bytes + send_begin.back() * size_in_bytes(type));
    in = copied.data();
  }
  // Messages between pairs, not MPI_Alltoallv: whether a total fits an int may differ between ranks, the
  // count of a pair does not.
  const int tag = static_cast<int>(sequence_ % kTags);
  std::vector<MPI_Request> requests;
  std::vector<int> expected;
  for (int i = 1; i < world_.size; ++i) {
    const auto peer = static_cast<size_t>((world_.rank + world_.size - i) % world_.size);
    cut(receive_counts[peer], max_count_, [&](int64_t begin, int n) {
      expected.push_back(n);
      call.check(MPI_Irecv(element_at(out, receive_begin[peer] + begin, type), n, mpi_type(type),
                           static_cast<int>(peer), tag, comm_, &requests.emplace_back()));
    });
  }
  for (int i = 1; i < world_.size; ++i) {
    const auto peer = static_cast<size_t>((world_.rank + i) % world_.size);
    cut(send_counts[peer], max_count_, [&](int64_t begin, int n) {
      call.check(MPI_Isend(element_at(in, send_begin[peer] + begin, type), n, mpi_type(type),
                           static_cast<int>(peer), tag, comm_, &requests.emplace_back()));
    });
  }
  copy(element_at(in, send_begin[own], type), element_at(out, receive_begin[own], type),
       send_counts[own], type);

  // One by one: after an error, Open MPI 4.1's MPI_Waitall can wait for ever.
  for (size_t i = 0; i < requests.size(); ++i) {
    MPI_Status status;
    call.check(MPI_Wait(&requests[i], &status));
    if (i >= expected.size()) continue;  // a send
    int got = 0;
    call.check(MPI_Get_count(&status, mpi_type(type), &got));
    KT_CHECK(got == expected[i], "all_to_all #{}: {} elements from rank {}, expected {}", sequence_,
             got, status.MPI_SOURCE, expected[i]);
  }
}

void MpiCommunicator::barrier() {
  const Call call(*this, "barrier", {});
  call.check(MPI_Barrier(comm_));
}

void MpiCommunicator::synchronize(Stream stream) {
  KT_CHECK(stream.handle == nullptr, "MPI has no streams");
}

}  // namespace kt
