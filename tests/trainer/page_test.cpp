#include "trainer/reports/page.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/browser.h"
#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kMarkup = "</script><script>alert(1)</script><b>\"&'";

Page page_of_everything() {
  Page page("Pictures of <all> kinds", kMarkup);
  page.section("curves", "Curves");
  page.text(kMarkup);
  page.warning("Take care.");
  page.add(Chart{
      .title = kMarkup,
      .x = {.label = "step"},
      .y = {.label = "loss", .log = true},
      .series = {
          {.name = kMarkup, .x = {1, 2, 3}, .y = {.5, NAN, .25}},
          {.name = "points", .mark = Mark::kPoints, .x = {1, 2}, .y = {.1, 0}, .colour = {1, 2}},
          {.name = "steps", .mark = Mark::kSteps, .x = {0, 1}, .y = {3, 3}, .fill = true}}});
  page.section("bars", "Bars");
  const BarSeries ours{.name = "ours", .values = {.5, NAN}, .low = {.4, NAN}, .high = {.6, NAN}};
  const BarSeries chance{.name = "chance", .values = {.1, .2}};
  BarChart bars;
  bars.title = "Bars";
  bars.names_label = "system";
  bars.names = {kMarkup, "mf"};
  bars.values.label = "NDCG@10";
  bars.series = {ours, chance};
  bars.lying = true;
  page.add(bars);
  page.add(HeatMap{.title = "Correlations",
                   .rows = {"a", kMarkup},
                   .columns = {"a", "b"},
                   .values = {{1, -.5}, {NAN, 1}}});
  page.add(ParallelCoordinates{
      .title = "Trials",
      .axes = {"lr", "name", "mse"},
      .lines = {{"one", {.1, std::string(kMarkup), .5}}, {"two", {.2, std::string("mf"), NAN}}},
      .colour_axis = 2});
  page.add(PageTable{.title = "Numbers",
                     .columns = {"what", "n"},
                     .rows = {{std::string(kMarkup), int64_t{3}}, {std::string("x"), .123456}}});
  return page;
}

TEST(Page, DrawsEveryPictureInABrowserWithoutANetworkAndRunsNothingOfItsTexts) {
  const Workshop folder("page");
  const auto path = folder.path() / "page.html";
  write_file(path, page_of_everything().html());
  const json seen = look_at(path);
  EXPECT_THAT(seen["sections"], ElementsAre("curves", "bars"));
  ASSERT_EQ(seen["pictures"].size(), 3u);
  EXPECT_EQ(seen["pictures"][0]["marks"], 7);  // three, two, two: a value that is none is a gap
  EXPECT_EQ(seen["pictures"][1]["marks"], 6);  // intervals, values and bars of two names
  EXPECT_EQ(seen["pictures"][2]["marks"], 6);
  EXPECT_EQ(seen["pictures"][0]["label"], std::string(kMarkup) + ". loss over step");
  EXPECT_THAT(seen["tables"], ElementsAre("Correlations", "Numbers"));
  const std::string text = seen["text"];
  EXPECT_THAT(text, HasSubstr(kMarkup));
  EXPECT_THAT(text, HasSubstr("0.1235"));
}

TEST(Page, EscapesWhateverIsNotMarkupOfOurs) {
  EXPECT_EQ(html_escaped("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
  EXPECT_THAT(page_of_everything().html(), Not(HasSubstr("alert(1)</script><b>")));
}

TEST(Page, WithoutAnythingIsAPageStill) {
  const Workshop folder("page");
  const auto path = folder.path() / "page.html";
  write_file(path, Page("Empty", "").html());
  EXPECT_EQ(look_at(path)["pictures"], json::array());
}

TEST(Thinned, KeepsTheEndsAndAtMostSoMany) {
  EXPECT_THAT(thinned(3, 10), ElementsAre(0, 1, 2));
  EXPECT_THAT(thinned(9, 3), ElementsAre(0, 4, 8));
  EXPECT_THAT(thinned(0, 3), ElementsAre());
}

}  // namespace
}  // namespace kt
