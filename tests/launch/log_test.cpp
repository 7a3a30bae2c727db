#include "launch/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "launch/base/errors.h"
#include "launch/base/progress.h"

namespace kt {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

struct Output {
  std::string out, err;
};

Output log_all(World world, LogStream stream, bool quiet) {
  CaptureStdout();
  CaptureStderr();
  log_start(world, stream, quiet);
  log_info("step {}", 7);
  log_warning("slow {}", "disk");
  log_error("no {}", "file");
  log_flush();
  return {GetCapturedStdout(), GetCapturedStderr()};
}

TEST(Log, Rank0PrintsPlainInfoAndProblemsApart) {
  const Output output = log_all({0, 2}, LogStream::kStdout, false);
  EXPECT_EQ(output.out, "step 7\n");
  EXPECT_EQ(output.err, "warning: slow disk\nerror: no file\n");
}

TEST(Log, OtherRanksPrintTaggedProblemsOnly) {
  const Output output = log_all({1, 2}, LogStream::kStdout, false);
  EXPECT_EQ(output.out, "");
  EXPECT_EQ(output.err, "[rank 1] warning: slow disk\n[rank 1] error: no file\n");
}

TEST(Log, QuietLeavesProblems) {
  const Output output = log_all({0, 1}, LogStream::kStdout, true);
  EXPECT_EQ(output.out, "");
  EXPECT_EQ(output.err, "warning: slow disk\nerror: no file\n");
}

TEST(Log, StdoutIsLeftToTheDocument) {
  const Output output = log_all({0, 1}, LogStream::kStderr, false);
  EXPECT_EQ(output.out, "");
  EXPECT_EQ(output.err, "step 7\nwarning: slow disk\nerror: no file\n");
}

TEST(Log, BracesInATextAreText) {
  CaptureStdout();
  log_start({}, LogStream::kStdout, false);
  log_line(LogLevel::kInfo, "{a: 1} {}");
  EXPECT_EQ(GetCapturedStdout(), "{a: 1} {}\n");
}

TEST(Log, FileHasEveryLineWithItsTime) {
  const std::string path = ::testing::TempDir() + "log_test_file.txt";
  std::ofstream(path) << "earlier\n";
  log_to_file(path);
  log_all({0, 1}, LogStream::kStdout, true);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("earlier\n"));
  EXPECT_THAT(text.str(),
              ContainsRegex("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ step 7\n.* warning: slow disk\n"));
  EXPECT_THAT(text.str(), HasSubstr("error: no file\n"));
}

TEST(Log, FileThatCannotBeOpenedIsNamed) {
  const std::string path = ::testing::TempDir();  // a folder
  try {
    log_to_file(path);
    ADD_FAILURE() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr(path + ": the log cannot be opened"));
  }
}

TEST(Progress, LineSaysShareRateAndTimeLeft) {
  EXPECT_EQ(progress_line("training", 500'000, 2'000'000, 2, "rows", "loss .412"),
            "training [======>                 ]  25 % 250k rows/s, 6 s left  loss .412");
  EXPECT_EQ(progress_line("import", 10, 10, 1, "rows", ""),
            "import [========================] 100 % 10 rows/s, 0 s left");
  // What was there before the time began has no part in the rate.
  EXPECT_EQ(progress_line("sweep", 6, 27, 600, "epochs", "", 3),
            "sweep [=====>                  ]  22 % 0.005 epochs/s, 70 min left");
}

TEST(Progress, NothingIsDrawnWithoutATerminal) {
  CaptureStderr();
  {
    ProgressBar bar("training", 10, "rows");
    bar.update(5, [] { return std::string("loss .5"); });
    advance_progress(5);
    clear_progress();
  }
  EXPECT_EQ(GetCapturedStderr(), "");
}

}  // namespace
}  // namespace kt
