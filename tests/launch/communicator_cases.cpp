// What every form of the communicator does. Expected values come from plain MPI or from the rank's formula.
#include "tests/launch/communicator_cases.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <mpi.h>

#include <atomic>
#include <numeric>
#include <utility>

namespace kt {
namespace {

using ::testing::HasSubstr;

TEST_P(CommunicatorTest, KnowsItsWorld) {
  int rank = -1, size = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(subject->comm().world().rank, rank);
  EXPECT_EQ(subject->comm().world().size, size);
}

template <class T>
void check_all_reduce(Subject& subject, MPI_Datatype type) {
  const std::pair<Reduction, MPI_Op> reductions[] = {
      {Reduction::kSum, MPI_SUM}, {Reduction::kMin, MPI_MIN}, {Reduction::kMax, MPI_MAX}};
  for (const auto& [reduction, op] : reductions) {
    for (const int64_t count : {0, 1, 3, 10}) {
      const std::vector<T> mine = values_of<T>(subject.comm().world().rank, count);
      std::vector<T> expected(mine.size());
      MPI_Allreduce(mine.data(), expected.data(), static_cast<int>(count), type, op,
                    MPI_COMM_WORLD);
      const Buffer<T> in(subject, mine), out(subject, std::vector<T>(mine.size()));
      subject.comm().all_reduce(in.data(), out.data(), count, DataTypeOf<T>::value, reduction,
                                subject.stream());
      EXPECT_EQ(out.values(), expected);
      EXPECT_EQ(in.values(), mine);
      subject.comm().all_reduce(in.data(), in.data(), count, DataTypeOf<T>::value, reduction,
                                subject.stream());
      EXPECT_EQ(in.values(), expected);
    }
  }
}

TEST_P(CommunicatorTest, AllReduceOfEveryTypeAndReduction) {
  check_all_reduce<uint8_t>(*subject, MPI_UINT8_T);
  check_all_reduce<int32_t>(*subject, MPI_INT32_T);
  check_all_reduce<int64_t>(*subject, MPI_INT64_T);
  check_all_reduce<uint64_t>(*subject, MPI_UINT64_T);
  check_all_reduce<float>(*subject, MPI_FLOAT);
  check_all_reduce<double>(*subject, MPI_DOUBLE);
}

TEST_P(CommunicatorTest, AllReduceKeeps64Bits) {
  const Buffer<int64_t> value(*subject, {(int64_t{1} << 40) + world.rank});
  subject->comm().all_reduce(value.data(), value.data(), 1, DataType::kInt64, Reduction::kSum,
                             subject->stream());
  EXPECT_EQ(value.values()[0], world.size * (int64_t{1} << 40) + world.size * (world.size - 1) / 2);
}

TEST_P(CommunicatorTest, ReduceScatterGivesEachRankItsPart) {
  for (const int64_t count : {0, 1, 3, 8}) {
    const std::vector<float> mine = values_of<float>(world.rank, count * world.size);
    std::vector<float> sums(mine.size());
    MPI_Allreduce(mine.data(), sums.data(), static_cast<int>(mine.size()), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
    const Buffer<float> in(*subject, mine),
        out(*subject, std::vector<float>(static_cast<size_t>(count)));
    subject->comm().reduce_scatter(in.data(), out.data(), count, DataType::kFloat32,
                                   Reduction::kSum, subject->stream());
    const auto begin = sums.begin() + world.rank * count;
    EXPECT_EQ(out.values(), std::vector<float>(begin, begin + count));
  }
}

// Rank r gives (a + b*r) elements.
void check_all_gather(Subject& subject, int64_t a, int64_t b) {
  const World world = subject.comm().world();
  std::vector<int64_t> counts;
  std::vector<int32_t> expected;
  for (int r = 0; r < world.size; ++r) {
    counts.push_back(a + b * r);
    const std::vector<int32_t> part = values_of<int32_t>(r, counts.back());
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const Buffer<int32_t> in(subject,
                           values_of<int32_t>(world.rank, counts[static_cast<size_t>(world.rank)]));
  const Buffer<int32_t> out(subject, std::vector<int32_t>(expected.size(), -1));
  subject.comm().all_gather(in.data(), out.data(), counts, DataType::kInt32, subject.stream());
  EXPECT_EQ(out.values(), expected);
}

TEST_P(CommunicatorTest, AllGatherOfEvenUnevenAndEmptyParts) {
  check_all_gather(*subject, 5, 0);
  check_all_gather(*subject, 1, 3);
  check_all_gather(*subject, 0, 4);
  check_all_gather(*subject, 0, 0);
}

TEST_P(CommunicatorTest, AllGatherInPlace) {
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 2);
  std::vector<double> data(counts.size() * 2, 0), expected;
  for (int r = 0; r < world.size; ++r) {
    expected.insert(expected.end(), {r + .5, r + .25});
  }
  data[static_cast<size_t>(2 * world.rank)] = world.rank + .5;
  data[static_cast<size_t>(2 * world.rank + 1)] = world.rank + .25;
  const Buffer<double> buffer(*subject, data);
  subject->comm().all_gather(buffer.data() + 2 * world.rank, buffer.data(), counts,
                             DataType::kFloat64, subject->stream());
  EXPECT_EQ(buffer.values(), expected);
}

TEST_P(CommunicatorTest, BroadcastFromEveryRank) {
  for (int root = 0; root < world.size; ++root) {
    for (const int64_t count : {0, 2, 7}) {
      const Buffer<uint64_t> data(*subject, values_of<uint64_t>(world.rank, count));
      subject->comm().broadcast(data.data(), count, DataType::kUint64, root, subject->stream());
      EXPECT_EQ(data.values(), values_of<uint64_t>(root, count));
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

TEST_P(CommunicatorTest, AllToAllOfUnevenParts) {
  std::vector<int64_t> mine, expected, send_counts, receive_counts;
  for (int r = 0; r < world.size; ++r) {
    send_counts.push_back(pair_count(world.rank, r));
    receive_counts.push_back(pair_count(r, world.rank));
    const auto sent = pair_values(world.rank, r), got = pair_values(r, world.rank);
    mine.insert(mine.end(), sent.begin(), sent.end());
    expected.insert(expected.end(), got.begin(), got.end());
  }
  const Buffer<int64_t> in(*subject, mine);
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Buffer<int64_t> out(*subject, std::vector<int64_t>(expected.size(), -1));
    subject->comm().all_to_all(in.data(), send_counts, out.data(), receive_counts, DataType::kInt64,
                               subject->stream());
    EXPECT_EQ(out.values(), expected);
  }
}

TEST_P(CommunicatorTest, AllToAllOfNothing) {
  const std::vector<int64_t> none(static_cast<size_t>(world.size), 0);
  const Buffer<int32_t> data(*subject, {7});
  subject->comm().all_to_all(nullptr, none, nullptr, none, DataType::kInt32, subject->stream());
  EXPECT_EQ(data.values()[0], 7);
}

TEST_P(CommunicatorTest, EachWorksOnWhatTheOneBeforeLeft) {
  const Buffer<int64_t> data(*subject, {world.rank + 1});
  int64_t expected = world.size * (world.size + 1) / 2;
  for (int i = 0; i < 20; ++i) {
    subject->comm().all_reduce(data.data(), data.data(), 1, DataType::kInt64, Reduction::kSum,
                               subject->stream());
    if (i > 0) expected *= world.size;
  }
  EXPECT_EQ(data.values()[0], expected);
}

TEST_P(CommunicatorTest, BarrierWaitsForEveryRank) {
  int64_t* memory = nullptr;
  MPI_Win window = MPI_WIN_NULL;
  MPI_Win_allocate_shared(world.rank == 0 ? sizeof(int64_t) : 0, 1, MPI_INFO_NULL, comm.handle(),
                          &memory, &window);
  MPI_Aint bytes = 0;
  int unit = 0;
  MPI_Win_shared_query(window, 0, &bytes, &unit, &memory);
  const std::atomic_ref<int64_t> arrived(*memory);
  if (world.rank == 0) arrived = 0;
  comm.barrier();
  for (int round = 1; round <= 50; ++round) {
    ++arrived;
    subject->comm().barrier();
    EXPECT_GE(arrived, round * world.size);
  }
  comm.barrier();
  MPI_Win_free(&window);
}

TEST_P(CommunicatorTest, NumbersItsCalls) {
  const int64_t before = subject->sequence();
  subject->comm().barrier();
  const Buffer<int32_t> value(*subject, {world.rank + 1});
  subject->comm().broadcast(value.data(), 1, DataType::kInt32, 0, subject->stream());
  subject->comm().broadcast(value.data(), 0, DataType::kInt32, 0, subject->stream());
  EXPECT_EQ(value.values()[0], 1);
  EXPECT_EQ(subject->sequence(), before + 3);
}

TEST_P(CommunicatorTest, CommunicatorsDoNotMix) {
  // Two collectives of equal shape, begun in the same order, on two communicators.
  int32_t second = 10 * (world.rank + 1);
  const std::unique_ptr<Subject> other = GetParam().make();
  const Buffer<int32_t> first(*subject, {world.rank + 1}), third(*other, {100 * (world.rank + 1)});
  subject->comm().all_reduce(first.data(), first.data(), 1, DataType::kInt32, Reduction::kMax,
                             subject->stream());
  other->comm().all_reduce(third.data(), third.data(), 1, DataType::kInt32, Reduction::kMax,
                           other->stream());
  comm.all_reduce(std::span(&second, 1), Reduction::kMax);
  EXPECT_EQ(first.values()[0], world.size);
  EXPECT_EQ(second, 10 * world.size);
  EXPECT_EQ(third.values()[0], 100 * world.size);
  other->finish();
}

TEST_P(CommunicatorTest, ChecksSizesBeforeItSpeaks) {
  Communicator& tested = subject->comm();
  const Buffer<int32_t> data(*subject, {5, 6});
  int32_t *a = data.data(), *b = a + 1;
  const std::vector<int64_t> too_many(static_cast<size_t>(world.size + 1), 0);
  std::vector<int64_t> negative(static_cast<size_t>(world.size), 0);
  negative.back() = -3;
  std::vector<int64_t> one_to_self(static_cast<size_t>(world.size), 0), none(one_to_self);
  one_to_self[static_cast<size_t>(world.rank)] = 1;
  const auto type = DataType::kInt32;
  EXPECT_THAT(bug_of([&] { tested.broadcast(a, 1, type, world.size, subject->stream()); }),
              HasSubstr("root"));
  EXPECT_THAT(
      bug_of([&] { tested.all_reduce(a, a, -1, type, Reduction::kSum, subject->stream()); }),
      HasSubstr("count -1"));
  EXPECT_THAT(bug_of([&] { tested.all_gather(a, b, too_many, type, subject->stream()); }),
              HasSubstr(fmt::format("{} counts for {} ranks", world.size + 1, world.size)));
  EXPECT_THAT(bug_of([&] { tested.all_gather(a, b, negative, type, subject->stream()); }),
              HasSubstr("count -3"));
  EXPECT_THAT(bug_of([&] { tested.all_to_all(a, one_to_self, b, none, type, subject->stream()); }),
              HasSubstr(fmt::format("rank {} sends itself 1, receives 0", world.rank)));
  if (world.size > 1) {
    EXPECT_THAT(
        bug_of([&] { tested.reduce_scatter(a, a, 1, type, Reduction::kSum, subject->stream()); }),
        HasSubstr("in == out"));
  }
  EXPECT_EQ(data.values(), (std::vector<int32_t>{5, 6}));
}

}  // namespace
}  // namespace kt
