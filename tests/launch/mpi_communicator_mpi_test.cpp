#include <gmock/gmock.h>

#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "launch/base/errors.h"
#include "launch/collectives/mpi_communicator.h"
#include "launch/process/mpi_session.h"
#include "tests/launch/communicator_cases.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

using ::testing::HasSubstr;

class MpiSubject final : public Subject {
 public:
  explicit MpiSubject(int max_count) : comm_(MPI_COMM_WORLD, max_count) {}
  Communicator& comm() override { return comm_; }
  int64_t sequence() const override { return comm_.sequence(); }
  void* allocate(size_t bytes) override { return ::operator new(bytes); }
  void free(void* memory) override { ::operator delete(memory); }
  void write(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void read(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  MpiCommunicator comm_;
};

SubjectKind with_limit(const char* name, int max_count) {
  return {name, [max_count] { return std::make_unique<MpiSubject>(max_count); }};
}

// With MPI's own limit, and with 3 elements a message, so that the cutting of large counts is walked through.
INSTANTIATE_TEST_SUITE_P(Mpi, CommunicatorTest,
                         ::testing::Values(with_limit("whole", std::numeric_limits<int>::max()),
                                           with_limit("cut", 3)),
                         name_of);

using MpiForm = MpiTest;

TEST_F(MpiForm, TypedCalls) {
  int32_t value = world.rank + 1;
  comm.all_reduce(std::span(&value, 1), Reduction::kMax);
  EXPECT_EQ(value, world.size);
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 1);
  const int64_t mine = world.rank + 5;
  std::vector<int64_t> all(counts.size()), expected(counts.size());
  std::iota(expected.begin(), expected.end(), 5);
  comm.all_gather(std::span(&mine, 1), std::span(all), counts);
  EXPECT_EQ(all, expected);
  std::vector<int64_t> received(counts.size());
  comm.all_to_all(std::span<const int64_t>(all), counts, std::span(received), counts);
  EXPECT_EQ(received, std::vector<int64_t>(counts.size(), mine));
  comm.broadcast(std::span(all), 0);
  EXPECT_EQ(all, expected);
}

TEST_F(MpiForm, AllToAllInPlace) {
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 4);
  std::vector<int32_t> data, expected;
  for (int r = 0; r < world.size; ++r) {
    for (int i = 0; i < 4; ++i) {
      data.push_back(100 * world.rank + 10 * r + i + 1);
      expected.push_back(100 * r + 10 * world.rank + i + 1);
    }
  }
  comm.all_to_all(data.data(), counts, data.data(), counts, DataType::kInt32);
  EXPECT_EQ(data, expected);
}

TEST_F(MpiForm, HasNoStreams) {
  int32_t data = 5;
  EXPECT_THAT(bug_of([&] { comm.broadcast(&data, 1, DataType::kInt32, 0, Stream{&data}); }),
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
