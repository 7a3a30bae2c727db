#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "trainer/evaluation/evaluation_table.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

EvaluationResult example() {
  EvaluationResult result;
  result.users = 1411;
  result.pairs = 4676570;
  result.labels = {"ratio>=4", "ratio>=2", "top-50", "duration-p80"};
  result.k = {1, 10, 20, 50};
  for (const char* name :
       {"mse", "mae", "xauc", "novelty@10", "coverage@50", "ncf.ndcg@50_ideal_of_retrieved",
        "precision@10/ratio>=2", "ndcg@50/ratio>=2", "ndcg_exp@10/graded5", "mrr/duration-p80",
        "gauc@ratio>=4", "feature_mlp.ndcg@10_on_ids_rounded", "two_tower.recall_repeated_rows"}) {
    result.metrics[name] = .25;
    result.chance[name] = .125;
  }
  result.metrics["mse"] = 123456;
  result.skipped_users = {{"ratio>=2@10", 3},
                          {"ratio>=1@10", 0},
                          {"a rather long label@10", 1},
                          {"another rather long label@50", 1200}};
  result.notes = {"r2 is left out: all labels are equal"};
  return result;
}

TEST(EvaluationTable, SaysWhatItIsOf) {
  const std::string text = evaluation_table(
      {.dataset = "synth", .checkpoint = "step 12 (best)", .synthetic = true}, example());
  EXPECT_THAT(text,
              HasSubstr("Evaluation of synth, step 12 (best): 1,411 users, 4,676,570 pairs\n"));
  EXPECT_THAT(text, HasSubstr("synthetic"));
  EXPECT_THAT(text, HasSubstr("ratio>=2@10 3"));
  EXPECT_THAT(text, Not(HasSubstr("ratio>=1@10")));
  EXPECT_THAT(text, HasSubstr("another rather long label@50 1,200"));
  EXPECT_THAT(text, HasSubstr("r2 is left out: all labels are equal\n"));
  EXPECT_THAT(
      evaluation_table({.dataset = "real", .checkpoint = {}, .synthetic = false}, example()),
      Not(HasSubstr("synthetic")));
}

TEST(EvaluationTable, HoldsValueAndChanceOfEveryMetricInEightyColumns) {
  const std::string text =
      evaluation_table({.dataset = "synth", .checkpoint = {}, .synthetic = true}, example());
  std::istringstream lines(text);
  int cells = 0;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80u) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
    for (size_t at = line.find("0.2500 (0.1250)"); at != std::string::npos;
         at = line.find("0.2500 (0.1250)", at + 1)) {
      ++cells;
    }
  }
  EXPECT_EQ(cells, 12);
  EXPECT_THAT(text, HasSubstr("1.235e+05 (0.1250)"));
  EXPECT_THAT(text, Not(HasSubstr("top-50")));  // nothing of it was given
}

TEST(EvaluationTable, HasTheIntervalsThatThereAre) {
  const EvaluationTitle title{.dataset = "synth", .checkpoint = {}, .synthetic = false};
  EvaluationResult result = example();
  EXPECT_THAT(evaluation_table(title, result), Not(HasSubstr("95 %")));
  result.intervals = {{"gauc@ratio>=4", {.low = .5, .high = .75}},
                      {"ndcg@10/ratio>=2", {.low = .125, .high = .25}}};
  const std::string text = evaluation_table(title, result);
  EXPECT_THAT(text, HasSubstr("95 % intervals"));
  EXPECT_THAT(text, HasSubstr("gauc@ratio>=4       [0.5000, 0.7500]"));
  EXPECT_THAT(text, HasSubstr("ratio>=2                          -     [0.1250, 0.2500]"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
}

TEST(EvaluationTable, SaysWhatHasNoTrainingRows) {
  const EvaluationTitle title{.dataset = "synth", .checkpoint = {}, .synthetic = false};
  EvaluationResult result = example();
  EXPECT_THAT(evaluation_table(title, result), Not(HasSubstr("without training rows")));
  result.untrained = {.users = 2,
                      .items = 1234,
                      .pairs = 5678,
                      .metrics = {{"mae", .5}, {"mse", .25}},
                      .chance = {{"mae", .75}, {"mse", 1}}};
  EXPECT_THAT(evaluation_table(title, result),
              HasSubstr("without training rows: 2 users, 1,234 items, 5,678 pairs of either,\n"
                        "  mae 0.5000 (0.7500), mse 0.2500 (1.0000)\n"));
}

}  // namespace
}  // namespace kt
