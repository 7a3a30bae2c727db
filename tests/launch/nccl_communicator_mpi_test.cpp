// The NCCL communicator over stand-ins of CUDA and NCCL (tests/support/nccl_stand_in).
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <string>
#include <vector>

#include "launch/collectives/agree.h"
#include "launch/collectives/nccl_communicator.h"
#include "tests/launch/communicator_cases.h"
#include "tests/support/nccl_stand_in/stand_in.h"

namespace kt {
namespace {

using stand_in::Faults;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class NcclSubject final : public Subject {
 public:
  explicit NcclSubject(bool own_stream) : world_(MPI_COMM_WORLD), comm_(world_) {
    cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking);
    if (!own_stream) cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  }
  NcclCommunicator& comm() override { return comm_; }
  int64_t sequence() const override { return comm_.sequence(); }
  Stream stream() const override { return {stream_}; }
  void* allocate(size_t bytes) override {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, bytes), cudaSuccess);
    return memory;
  }
  void free(void* memory) override { EXPECT_EQ(cudaFree(memory), cudaSuccess); }
  void write(void* to, const void* from, size_t bytes) override {
    copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void read(void* to, const void* from, size_t bytes) override {
    copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void finish() override {
    comm_.finish();
    if (stream_) {
      EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamDestroy(copies_), cudaSuccess);
  }

 private:
  void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    comm_.synchronize(stream());
    EXPECT_EQ(cudaMemcpyAsync(to, from, bytes, kind, copies_), cudaSuccess);
    comm_.synchronize({copies_});
  }

  MpiCommunicator world_;
  NcclCommunicator comm_;
  cudaStream_t copies_ = nullptr, stream_ = nullptr;
};

SubjectKind on_stream(const char* name, bool own) {
  return {name, [own] { return std::make_unique<NcclSubject>(own); }};
}
INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorTest,
                         ::testing::Values(on_stream("own_stream", true),
                                           on_stream("callers_stream", false)),
                         name_of);

class NcclTest : public MpiTest {
 protected:
  NcclTest() : device(true) { stand_in::take_calls(); }
  ~NcclTest() override { stand_in::set_faults({}); }
  void TearDown() override {
    stand_in::release();
    device.finish();
    EXPECT_EQ(stand_in::live_objects(), 0);
    MpiTest::TearDown();
  }
  void all_reduce(const Buffer<int64_t>& in, const Buffer<int64_t>& out, cudaStream_t stream) {
    device.comm().all_reduce(in.data(), out.data(), 1, DataType::kInt64, Reduction::kSum, {stream});
  }

  NcclSubject device;
};

TEST_F(NcclTest, CallsReturnBeforeTheDeviceGetsToThem) {
  {
    const Buffer<int64_t> in(device, {world.rank + 1}), out(device, {-1});
    stand_in::hold();
    all_reduce(in, out, nullptr);
    EXPECT_EQ(*out.data(), -1);  // the stand-in's device memory is the host's
    stand_in::release();
    device.comm().synchronize({});
    EXPECT_EQ(*out.data(), world.size * (world.size + 1) / 2);
  }
}

TEST_F(NcclTest, WorkOnTheCallersStreamIsInOrder) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  {
    const Buffer<int64_t> source(device, {world.rank + 1}), in(device, {0}), out(device, {0}),
        result(device, {0});
    stand_in::hold();
    cudaMemcpyAsync(in.data(), source.data(), sizeof(int64_t), cudaMemcpyDeviceToDevice, stream);
    all_reduce(in, out, stream);
    cudaMemcpyAsync(result.data(), out.data(), sizeof(int64_t), cudaMemcpyDeviceToDevice, stream);
    cudaMemsetAsync(out.data(), 0, sizeof(int64_t), stream);
    stand_in::release();
    device.comm().synchronize({stream});
    EXPECT_EQ(*result.data(), world.size * (world.size + 1) / 2);
    EXPECT_EQ(*out.data(), 0);
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(NcclTest, CollectivesOnSeveralStreamsRunInTheOrderOfTheCalls) {
  std::vector<cudaStream_t> streams(3);
  for (cudaStream_t& stream : streams) {
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  }
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 1);
  for (int round = 0; round < 10; ++round) {
    const Buffer<int64_t> a(device, {world.rank + 1}), b(device, {0}), c(device, counts),
        d(device, counts), e(device, {0});
    stand_in::hold();
    all_reduce(a, b, streams[0]);
    device.comm().all_gather(b.data(), c.data(), counts, DataType::kInt64, {streams[1]});
    device.comm().all_to_all(c.data(), counts, d.data(), counts, DataType::kInt64, {streams[2]});
    device.comm().reduce_scatter(d.data(), e.data(), 1, DataType::kInt64, Reduction::kSum,
                                 {streams[0]});
    stand_in::release();
    device.comm().synchronize({streams[0]});
    EXPECT_EQ(*e.data(), world.size * world.size * (world.size + 1) / 2);
  }
  for (cudaStream_t stream : streams) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(NcclTest, SeveralMessagesAreOneGroup) {
  const auto peers = static_cast<size_t>(world.size - 1);
  const auto ranks = static_cast<size_t>(world.size);
  {
    std::vector<int64_t> twos(ranks, 2), uneven(ranks, 1);
    uneven[0] = 2;
    const Buffer<int64_t> in(device, std::vector<int64_t>(2 * ranks)),
        out(device, std::vector<int64_t>(2 * ranks));
    device.comm().synchronize({});
    stand_in::take_calls();
    device.comm().all_to_all(in.data(), twos, out.data(), twos, DataType::kInt64);
    const std::vector<std::string> exchange = stand_in::take_calls();
    device.comm().all_gather(in.data(), out.data(), uneven, DataType::kInt64);
    const std::vector<std::string> gather = stand_in::take_calls();

    ASSERT_EQ(exchange.size(), 2 + 2 * peers);
    EXPECT_EQ(exchange.front(), "ncclGroupStart");
    EXPECT_EQ(exchange.back(), "ncclGroupEnd");
    EXPECT_EQ(std::count(exchange.begin(), exchange.end(), "ncclSend"), world.size - 1);
    EXPECT_EQ(std::count(exchange.begin(), exchange.end(), "ncclRecv"), world.size - 1);
    ASSERT_EQ(gather.size(), 2 + ranks);
    EXPECT_EQ(gather.front(), "ncclGroupStart");
    EXPECT_EQ(gather.back(), "ncclGroupEnd");
  }
}

TEST_F(NcclTest, WaitingLeavesNoErrorBehind) {
  {
    const Buffer<int64_t> data(device, {1});
    stand_in::hold();
    all_reduce(data, data, nullptr);
    all_reduce(data, data, nullptr);  // looks whether the first is done
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    stand_in::release();
    device.comm().synchronize({});
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  }
}

TEST_F(NcclTest, EventsAreUsedAgain) {
  {
    const Buffer<int64_t> data(device, {1});
    all_reduce(data, data, nullptr);
    device.comm().synchronize({});
    const int64_t objects = stand_in::live_objects();
    for (int i = 0; i < 30; ++i) {
      all_reduce(data, data, nullptr);
      device.comm().synchronize({});
    }
    EXPECT_EQ(stand_in::live_objects(), objects);
  }
}

TEST_F(NcclTest, EndsInOrder) {
  NcclSubject other(true);
  {
    const Buffer<int64_t> data(other, {1});
    stand_in::hold();
    all_reduce(data, data, nullptr);
    stand_in::release();
    stand_in::take_calls();
    other.finish();
  }
  const std::vector<std::string> calls = stand_in::take_calls();
  EXPECT_THAT(std::vector<std::string>(calls.begin(), calls.begin() + 2),
              ElementsAre("ncclCommFinalize", "ncclCommDestroy"));
  const auto own = std::find(calls.begin(), calls.end(), "cudaStreamDestroy");
  ASSERT_NE(own, calls.end());
  EXPECT_LT(std::find(calls.begin(), calls.end(), "cudaFree"), own);
  EXPECT_THAT(bug_of([&] { other.comm().barrier(); }), HasSubstr("NCCL has ended"));
  EXPECT_THAT(bug_of([&] { other.comm().finish(); }), HasSubstr("ended twice"));
}

TEST_F(NcclTest, TakesItsDeviceBeforeItMeetsTheOthers) {
  NcclSubject other(true);
  const std::vector<std::string> calls = stand_in::take_calls();
  const auto meets = std::find(calls.begin(), calls.end(), "ncclCommInitRankConfig");
  const auto takes = std::find(calls.begin(), calls.end(), "cudaSetDevice");
  ASSERT_NE(meets, calls.end());
  EXPECT_LT(takes, meets);
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "ncclGetUniqueId"), world.rank == 0);
  EXPECT_EQ(other.comm().device(), world.rank);
  other.finish();
}

TEST_F(NcclTest, AllToAllWantsTwoBuffers) {
  const std::vector<int64_t> counts(static_cast<size_t>(world.size), 1);
  const Buffer<int64_t> data(device, counts);
  EXPECT_THAT(bug_of([&] {
                device.comm().all_to_all(data.data(), counts, data.data(), counts,
                                         DataType::kInt64);
              }),
              HasSubstr("in == out"));
}

using ChooseDevice = MpiTest;

TEST_F(ChooseDevice, OnePerRankOfAHost) { EXPECT_EQ(choose_device(comm), world.rank); }

TEST_F(ChooseDevice, ARankMaySeeItsOwnAlone) {
  Faults faults;
  faults.devices = {world.rank};
  stand_in::set_faults(faults);
  EXPECT_EQ(choose_device(comm), 0);
  stand_in::set_faults({});
}

TEST_F(ChooseDevice, RefusesMoreRanksThanDevices) {
  if (world.size == 1) return;
  Faults faults;
  faults.devices.resize(static_cast<size_t>(world.size - 1));
  stand_in::set_faults(faults);
  try {
    choose_device(comm);
    ADD_FAILURE() << "no error";
  } catch (const AgreedError& error) {
    EXPECT_THAT(error.what(),
                ContainsRegex(fmt::format("^host .+: {} ranks, but {} devices \\({} visible to "
                                          "rank 0\\); expected a device for each rank",
                                          world.size, world.size - 1, world.size - 1)));
    EXPECT_THAT(error.what(), HasSubstr("parallel.backend=mpi"));
  }
  stand_in::set_faults({});
}

TEST_F(ChooseDevice, OneRankWithoutADriverIsEveryonesError) {
  Faults faults;
  faults.no_device = world.rank == world.size - 1;
  stand_in::set_faults(faults);
  EXPECT_THAT(bug_of([&] { NcclCommunicator nccl(comm); }),
              AllOf(HasSubstr(fmt::format("{} ranks, but rank {} has no device: CUDA: no device is "
                                          "detected (cudaErrorNoDevice); expected a device",
                                          world.size, world.size - 1)),
                    HasSubstr("parallel.backend=mpi")));
  stand_in::set_faults({});
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

}  // namespace
}  // namespace kt
