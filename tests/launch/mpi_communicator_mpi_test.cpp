#include <gmock/gmock.h>

#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "launch/errors.h"
#include "launch/mpi_communicator.h"
#include "launch/mpi_session.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// Every test runs with MPI's own limit and with 3 elements a message, so that the cutting of large counts
// is walked through. Expected values come from plain MPI or from the rank's formula.
class MpiCommunicatorTest : public MpiTest, public ::testing::WithParamInterface<int> {
 protected:
  MpiCommunicatorTest() : cut(MPI_COMM_WORLD, GetParam()) {}
  MpiCommunicator cut;
};
INSTANTIATE_TEST_SUITE_P(Limits, MpiCommunicatorTest,
                         ::testing::Values(std::numeric_limits<int>::max(), 3));

template <class T>
std::vector<T> values(int rank, int64_t count) {
  std::vector<T> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    v[static_cast<size_t>(i)] = static_cast<T>((rank + 1) * 10 + i % 7 + 1);
  }
  return v;
}

TEST_P(MpiCommunicatorTest, KnowsItsWorld) {
  int rank = -1, size = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(cut.world().rank, rank);
  EXPECT_EQ(cut.world().size, size);
}

template <class T>
void check_all_reduce(MpiCommunicator& comm, MPI_Datatype type) {
  const std::pair<Reduction, MPI_Op> reductions[] = {
      {Reduction::kSum, MPI_SUM}, {Reduction::kMin, MPI_MIN}, {Reduction::kMax, MPI_MAX}};
  for (const auto& [reduction, op] : reductions) {
    for (const int64_t count : {0, 1, 3, 10}) {
      const std::vector<T> in = values<T>(comm.world().rank, count);
      std::vector<T> out(in.size()), expected(in.size());
      MPI_Allreduce(in.data(), expected.data(), static_cast<int>(count), type, op, MPI_COMM_WORLD);
      comm.all_reduce(in.data(), out.data(), count, DataTypeOf<T>::value, reduction);
      EXPECT_EQ(out, expected);
      std::vector<T> in_place = in;
      comm.all_reduce(std::span(in_place), reduction);
      EXPECT_EQ(in_place, expected);
    }
  }
}

TEST_P(MpiCommunicatorTest, AllReduceOfEveryTypeAndReduction) {
  check_all_reduce<uint8_t>(cut, MPI_UINT8_T);
  check_all_reduce<int32_t>(cut, MPI_INT32_T);
  check_all_reduce<int64_t>(cut, MPI_INT64_T);
  check_all_reduce<uint64_t>(cut, MPI_UINT64_T);
  check_all_reduce<float>(cut, MPI_FLOAT);
  check_all_reduce<double>(cut, MPI_DOUBLE);
}

TEST_P(MpiCommunicatorTest, AllReduceKeeps64Bits) {
  int64_t value = (int64_t{1} << 40) + world.rank;
  cut.all_reduce(std::span(&value, 1), Reduction::kSum);
  EXPECT_EQ(value, world.size * (int64_t{1} << 40) + world.size * (world.size - 1) / 2);
}

TEST_P(MpiCommunicatorTest, ReduceScatterGivesEachRankItsPart) {
  for (const int64_t count : {0, 1, 3, 8}) {
    const std::vector<float> in = values<float>(world.rank, count * world.size);
    std::vector<float> sums(in.size()), out(static_cast<size_t>(count));
    MPI_Allreduce(in.data(), sums.data(), static_cast<int>(in.size()), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
    cut.reduce_scatter(in.data(), out.data(), count, DataType::kFloat32, Reduction::kSum);
    const auto begin = sums.begin() + world.rank * count;
    EXPECT_EQ(out, std::vector<float>(begin, begin + count));
  }
}

TEST_P(MpiCommunicatorTest, AllGatherOfUnevenAndEmptyParts) {
  // Rank r gives 4r elements, rank 0 none.
  std::vector<int64_t> counts;
  std::vector<int32_t> expected;
  for (int r = 0; r < world.size; ++r) {
    counts.push_back(4 * r);
    const std::vector<int32_t> part = values<int32_t>(r, 4 * r);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const std::vector<int32_t> in = values<int32_t>(world.rank, 4 * world.rank);
  std::vector<int32_t> out(expected.size(), -1);
  cut.all_gather(std::span(in), std::span(out), counts);
  EXPECT_EQ(out, expected);
}

TEST_P(MpiCommunicatorTest, AllGatherInPlace) {
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 2);
  std::vector<double> data(counts.size() * 2, 0), expected;
  for (int r = 0; r < world.size; ++r) {
    expected.insert(expected.end(), {r + .5, r + .25});
  }
  double* own = data.data() + 2 * world.rank;
  own[0] = world.rank + .5;
  own[1] = world.rank + .25;
  cut.all_gather(own, data.data(), counts, DataType::kFloat64);
  EXPECT_EQ(data, expected);
}

TEST_P(MpiCommunicatorTest, BroadcastFromEveryRank) {
  for (int root = 0; root < world.size; ++root) {
    for (const int64_t count : {0, 2, 7}) {
      std::vector<uint64_t> data = values<uint64_t>(world.rank, count);
      cut.broadcast(std::span(data), root);
      EXPECT_EQ(data, values<uint64_t>(root, count));
    }
  }
}

// What r sends to s: (r + 2s) % 5 elements, none for some pairs.
int64_t pair_count(int from, int to) { return (from + 2 * to + 1) % 5; }
std::vector<int64_t> pair_values(int from, int to) {
  std::vector<int64_t> v(static_cast<size_t>(pair_count(from, to)));
  std::iota(v.begin(), v.end(), 100 * from + 10 * to + 1);
  return v;
}

TEST_P(MpiCommunicatorTest, AllToAllOfUnevenParts) {
  std::vector<int64_t> in, expected, send_counts, receive_counts;
  for (int r = 0; r < world.size; ++r) {
    send_counts.push_back(pair_count(world.rank, r));
    receive_counts.push_back(pair_count(r, world.rank));
    const auto sent = pair_values(world.rank, r), got = pair_values(r, world.rank);
    in.insert(in.end(), sent.begin(), sent.end());
    expected.insert(expected.end(), got.begin(), got.end());
  }
  std::vector<int64_t> out(expected.size(), -1);
  for (int repeat = 0; repeat < 3; ++repeat) {
    cut.all_to_all(std::span<const int64_t>(in), send_counts, std::span(out), receive_counts);
    EXPECT_EQ(out, expected);
  }
}

TEST_P(MpiCommunicatorTest, AllToAllInPlace) {
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 4);
  std::vector<int32_t> data, expected;
  for (int r = 0; r < world.size; ++r) {
    for (int i = 0; i < 4; ++i) {
      data.push_back(100 * world.rank + 10 * r + i + 1);
      expected.push_back(100 * r + 10 * world.rank + i + 1);
    }
  }
  cut.all_to_all(data.data(), counts, data.data(), counts, DataType::kInt32);
  EXPECT_EQ(data, expected);
}

TEST_P(MpiCommunicatorTest, NumbersItsCalls) {
  const int64_t before = cut.sequence();
  cut.barrier();
  int32_t value = world.rank + 1;
  cut.broadcast(std::span(&value, 1), 0);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(cut.sequence(), before + 2);
}

TEST_P(MpiCommunicatorTest, CommunicatorsDoNotMix) {
  // Two collectives of equal shape, begun in the same order, on two communicators.
  int32_t first = world.rank + 1, second = 10 * (world.rank + 1);
  cut.all_reduce(std::span(&first, 1), Reduction::kMax);
  comm.all_reduce(std::span(&second, 1), Reduction::kMax);
  EXPECT_EQ(first, world.size);
  EXPECT_EQ(second, 10 * world.size);
}

template <class Call>
std::string bug_of(Call&& call) {
  try {
    call();
  } catch (const BugError& error) {
    return error.what();
  }
  return "no error";
}

TEST_P(MpiCommunicatorTest, ChecksSizesBeforeItSpeaks) {
  int32_t data = 5;
  const std::vector<int64_t> short_counts(static_cast<size_t>(world.size + 1), 0);
  std::vector<int64_t> negative(static_cast<size_t>(world.size), 0);
  negative.back() = -3;
  EXPECT_THAT(bug_of([&] { cut.broadcast(&data, 1, DataType::kInt32, world.size); }),
              HasSubstr("root"));
  EXPECT_THAT(bug_of([&] { cut.all_reduce(&data, &data, -1, DataType::kInt32, Reduction::kSum); }),
              HasSubstr("count -1"));
  EXPECT_THAT(bug_of([&] { cut.all_gather(&data, &data, short_counts, DataType::kInt32); }),
              HasSubstr(fmt::format("{} counts for {} ranks", world.size + 1, world.size)));
  EXPECT_THAT(bug_of([&] { cut.all_gather(&data, &data, negative, DataType::kInt32); }),
              HasSubstr("count -3"));
  EXPECT_THAT(bug_of([&] { cut.broadcast(&data, 1, DataType::kInt32, 0, Stream{&data}); }),
              HasSubstr("no streams"));
  EXPECT_EQ(data, 5);
}

using MpiErrors = MpiTest;

TEST_F(MpiErrors, NameOperationNumberRankAndCause) {
  try {
    check_mpi(MPI_ERR_TRUNCATE, "all_reduce", 41);
    ADD_FAILURE() << "no error";
  } catch (const PeerError& error) {
    EXPECT_THAT(
        error.what(),
        HasSubstr(fmt::format("all_reduce #41 failed on rank {}: MPI_ERR_TRUNCATE", world.rank)));
  }
  EXPECT_NO_THROW(check_mpi(MPI_SUCCESS, "all_reduce", 42));
}

TEST_F(MpiErrors, AreReturnedNotFatal) {
  if (world.size == 1) return;
  // Rank 0 sends rank 1 two elements more than it expects.
  const int64_t to_next = world.rank == 0 ? 3 : 1;
  const int64_t from_next = 1;
  std::vector<int64_t> send(static_cast<size_t>(world.size), 0), receive(send);
  if (world.rank == 0) send[1] = to_next;
  if (world.rank == 1) receive[0] = from_next;
  std::vector<int32_t> data(8, 9), out(8, 0);
  if (world.rank == 1) {
    EXPECT_THROW(comm.all_to_all(data.data(), send, out.data(), receive, DataType::kInt32),
                 PeerError);
  } else {
    EXPECT_NO_THROW(comm.all_to_all(data.data(), send, out.data(), receive, DataType::kInt32));
  }
}

using Session = MpiTest;

TEST_F(Session, KnowsNodeAndHost) {
  MpiSession& session = *MpiSession::running();
  EXPECT_EQ(session.world().rank, world.rank);
  EXPECT_EQ(session.world().size, world.size);
  EXPECT_EQ(session.node().size, world.size);  // CTest runs all ranks on one machine
  EXPECT_EQ(session.node().rank, world.rank);
  EXPECT_FALSE(session.host().empty());
}

}  // namespace
}  // namespace kt
