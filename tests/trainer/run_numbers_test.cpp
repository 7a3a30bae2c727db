// What a report reads of folders of runs: made up here, odd ones above all.
#include "trainer/reports/run_numbers.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/run/run_folder.h"
#include "launch/base/errors.h"
#include "tests/support/run_program.h"
#include "trainer/reports/run_curves.h"
#include "trainer/reports/run_page.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

std::string interval_line(int64_t step, double loss) {
  return fmt::format(
      R"({{"kind":"interval","step":{},"epoch":1,"loss":{},"gradient_norm":1,"gradient_norm_max":{},)"
      R"("learning_rate":0.1,"samples_per_second":100}})"
      "\n",
      step, std::isnan(loss) ? "null" : fmt::format("{}", loss), step % 7);
}

/// A run that has begun, with these lines of metrics.
fs::path made_up(const fs::path& folder, const std::string& metrics,
                 const std::string& dataset = "d") {
  fs::create_directories(folder);
  write_file(folder / "identity.json", json{{"dataset", dataset}}.dump());
  write_file(folder / "config.yaml", "model: {name: mf}\ncheckpoint: {best: gauc}\n");
  write_file(folder / "metrics.jsonl", metrics);
  return folder;
}

std::string message_of(const std::vector<std::string>& paths) {
  try {
    run_numbers(paths);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(RunCurves, JoinManyLinesIntoFewPointsOfTheirMeans) {
  const Workshop shop("run-curves");
  constexpr int64_t kLines = 3001;
  std::string lines;
  for (int64_t step = 1; step <= kLines; ++step)
    lines += interval_line(step, .5 * static_cast<double>(step));
  const json curves = read_run_curves(made_up(shop.path() / "long", lines));
  EXPECT_EQ(curves.at("lines"), kLines);
  EXPECT_EQ(curves.at("last_step"), kLines);
  const int64_t width = curves.at("lines_a_point");
  const json& intervals = curves.at("intervals");
  const size_t points = intervals.at("loss").size();
  EXPECT_GE(points, kCurvePoints);
  EXPECT_LE(points, 2 * kCurvePoints);
  EXPECT_EQ(points, static_cast<size_t>((kLines + width - 1) / width));
  for (size_t p = 0; p < points; ++p) {
    double sum = 0, largest = 0;
    int64_t count = 0, step = 0;
    for (int64_t line = static_cast<int64_t>(p) * width; line < kLines && count < width; ++line) {
      step = line + 1;
      sum += .5 * static_cast<double>(step);
      largest = std::max(largest, static_cast<double>(step % 7));
      ++count;
    }
    EXPECT_EQ(intervals.at("step").at(p), step);
    EXPECT_DOUBLE_EQ(intervals.at("loss").at(p), sum / static_cast<double>(count));
    EXPECT_EQ(intervals.at("gradient_norm_max").at(p), largest);
  }
}

TEST(RunNumbers, OfAnUnfinishedRunWithACutLine) {
  const Workshop shop("run-numbers");
  const std::string folder = made_up(
      shop.path() / "begun",
      interval_line(1, .5) + interval_line(2, NAN) +
          R"({"kind":"epoch","step":2,"epoch":1,"train_loss":1,"validation":{"rows":3,"gauc":0.5}})"
          "\n"
          R"({"kind":"epoch","step":4,"epoch":2,"train_loss":1,"validation":{"rows":3,"gauc":0.75}})"
          "\n"
          R"({"kind":"epoch","step":6,"epoch":3,"train_loss":1,"validation":{"rows":3,"gauc":0.75}})"
          "\n"
          R"({"kind":"rewind","step":6,"bad_step":9})"
          "\n"
          R"({"kind":"interval","st)");
  const json run = run_numbers({folder}).at("runs").at(0);
  EXPECT_EQ(run.at("state"), "unfinished");
  EXPECT_EQ(run.at("step"), 6);
  EXPECT_EQ(run.at("intervals").at("loss"), json({.5, nullptr}));
  EXPECT_EQ(run.at("config").at("model").at("name"), "mf");
  EXPECT_EQ(run.at("best"), (json{{"metric", "gauc"}, {"step", 4}, {"value", .75}}));
  EXPECT_THAT(run.at("notes"),
              ElementsAre("The last line of metrics.jsonl is cut or damaged, and left out."));
  const std::string page = run_page(run_numbers({folder}));
  EXPECT_THAT(page, AllOf(HasSubstr("No run here has been evaluated."),
                          HasSubstr("Step 9 was bad: back to step 6"), HasSubstr("went back to")));
}

TEST(RunNumbers, RefusesWhatIsNoRunOrDamaged) {
  const Workshop shop("run-numbers");
  EXPECT_THAT(message_of({(shop.path() / "nowhere").string()}),
              HasSubstr("nowhere, where no run is; expected the folder of a run or a sweep"));
  const fs::path damaged =
      made_up(shop.path() / "damaged", interval_line(1, 1) + "{}\n" + interval_line(2, 1));
  EXPECT_THAT(message_of({damaged.string()}),
              AllOf(HasSubstr("metrics.jsonl:2: is damaged"), HasSubstr("remove the line")));
  const fs::path result = made_up(shop.path() / "result", interval_line(1, 1));
  write_file(result / "result.json", R"({"steps": 1})");
  EXPECT_THAT(message_of({result.string()}), HasSubstr("result.json: is damaged or was changed"));
  write_file(shop.path() / "other.json", "{}");
  EXPECT_THAT(message_of({(shop.path() / "other.json").string()}),
              AllOf(HasSubstr("other.json: got what kuaitrain does not write"),
                    HasSubstr("compare --json")));
  fs::create_directories(shop.path() / "sweep");
  write_file(shop.path() / "sweep" / "leaderboard.json", "[1");
  EXPECT_THAT(message_of({(shop.path() / "sweep").string()}),
              HasSubstr("sweep: got what kuaitrain does not write"));
}

TEST(RunNumbers, NamesRunsApartAndTakesEachOnce) {
  const Workshop shop("run-numbers");
  const std::string first = made_up(shop.path() / "a" / "run", ""),
                    second = made_up(shop.path() / "b" / "run", "");
  const json numbers = run_numbers({first, (shop.path() / "a").string(), second});
  ASSERT_THAT(numbers.at("runs"), SizeIs(2));
  EXPECT_EQ(numbers.at("runs").at(0).at("name"), first);
  EXPECT_EQ(numbers.at("runs").at(1).at("name"), second);
}

TEST(RunPage, OfRunsWithOneLineOrNoneOrOfOtherData) {
  const Workshop shop("run-page");
  const std::string one = made_up(shop.path() / "one", interval_line(1, .625)),
                    none = made_up(shop.path() / "none", "", "another");
  const std::string page = run_page(run_numbers({one, none}));
  EXPECT_THAT(page, AllOf(HasSubstr("different data sets: their figures are not comparable"),
                          HasSubstr("The one line of each run"), HasSubstr("0.625"),
                          HasSubstr("No epoch has ended with validation rows.")));
  EXPECT_THAT(run_page(run_numbers({none})),
              AllOf(HasSubstr("metrics.jsonl has no line of training yet."),
                    Not(HasSubstr("not comparable"))));
}

}  // namespace
}  // namespace kt
