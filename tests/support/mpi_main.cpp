// The main of tests on real ranks. Failures of every rank are printed, with its number. A fatal one aborts
// all ranks, which would otherwise wait for this one in the next collective. Too few ranks is a failure.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "launch/process/mpi_session.h"
#include "launch/process/run_main.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr double kTimeout_s = 20;  // less than CTest's, so that the watchdog tells what hangs

class RankListener : public ::testing::EmptyTestEventListener {
 public:
  explicit RankListener(World world) : world_(world) {}

 private:
  void OnTestStart(const ::testing::TestInfo& test) override { test_ = &test; }
  void OnTestEnd(const ::testing::TestInfo&) override { test_ = nullptr; }
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s.%s: %s:%d: %s\n", world_.rank,
                 test_ ? test_->test_suite_name() : "-", test_ ? test_->name() : "-",
                 result.file_name() ? result.file_name() : "-", result.line_number(),
                 result.message());
    if (result.fatally_failed() && world_.size > 1) abort_run(EXIT_FAILURE);
  }

  World world_;
  // Kept, because GoogleTest holds its lock while it tells of a failure, so it cannot be asked then.
  const ::testing::TestInfo* test_ = nullptr;
};

int run_tests() {
  answer_stops(StopAnswer::kEnd);
  MpiSession& session = MpiSession::start();
  watchdog_set_timeout(kTimeout_s);
  const World world = session.world();
  const char* wanted = std::getenv("KT_TEST_RANKS");
  if (!wanted || std::to_string(world.size) != wanted) {
    std::fprintf(stderr, "this test wants %s ranks (KT_TEST_RANKS), and got %d\n",
                 wanted ? wanted : "a number of", world.size);
    return EXIT_FAILURE;
  }
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (world.rank != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new RankListener(world));
  int64_t code = RUN_ALL_TESTS();
  session.communicator().all_reduce(std::span(&code, 1), Reduction::kMax);
  return static_cast<int>(code);
}

}  // namespace

void MpiTest::TearDown() {
  int64_t failing = HasFailure() ? world.rank : world.size;
  comm.all_reduce(std::span(&failing, 1), Reduction::kMin);
  if (failing < world.size && !HasFailure()) ADD_FAILURE() << "failed on rank " << failing;
}

}  // namespace kt

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return kt::run_main(kt::run_tests);
}
