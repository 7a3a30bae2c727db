// The commands as a user gives them: what they print, write and refuse.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

/// Fields of the lines after the header; no field here has a comma.
std::vector<std::vector<std::string>> csv_rows(const fs::path& path, const std::string& header) {
  std::istringstream text(file_text(path));
  std::string line;
  std::getline(text, line);
  EXPECT_EQ(line, header);
  std::vector<std::vector<std::string>> rows;
  while (std::getline(text, line)) {
    std::istringstream fields(line);
    auto& row = rows.emplace_back();
    for (std::string field; std::getline(fields, field, ',');) row.push_back(field);
  }
  return rows;
}

struct Scored {
  std::string user, item;
  double label = 0;
  float score = 0;  // written so that it reads back to the same
};
std::vector<Scored> read_scores(const fs::path& path) {
  std::vector<Scored> scores;
  for (const auto& row : csv_rows(path, "user_id,video_id,watch_ratio,score"))
    scores.push_back({row.at(0), row.at(1), std::stod(row.at(2)), std::stof(row.at(3))});
  return scores;
}

double mean_squared_error(const std::vector<Scored>& scores) {
  double sum = 0;
  for (const Scored& s : scores) sum += (s.label - s.score) * (s.label - s.score);
  return sum / static_cast<double>(scores.size());
}

/// Binary gain for a label of `threshold` or more, users with a relevant candidate and more than k candidates.
double ndcg(const std::vector<Scored>& scores, size_t k, double threshold) {
  std::map<std::string, std::vector<Scored>> users;
  for (const Scored& s : scores) users[s.user].push_back(s);
  double sum = 0;
  int counted = 0;
  for (auto& [user, list] : users) {
    const auto relevant = static_cast<size_t>(std::count_if(
        list.begin(), list.end(), [&](const Scored& s) { return s.label >= threshold; }));
    if (relevant == 0 || list.size() <= k) continue;
    std::stable_sort(list.begin(), list.end(),
                     [](const Scored& a, const Scored& b) { return a.score > b.score; });
    double gain = 0, best = 0;
    for (size_t place = 0; place < k; ++place) {
      const double discount = 1 / std::log2(static_cast<double>(place) + 2);
      if (list[place].label >= threshold) gain += discount;
      if (place < relevant) best += discount;
    }
    sum += gain / best;
    ++counted;
  }
  return sum / counted;
}

class Commands : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-commands");
    make_replica(folder(), 8);
    write_ratings(folder());
    import_ratings(folder());
    const Ended official = run({"--config", KT_TINY_CONFIG, "data.path=" + path("dataset"),
                                "run.dir=" + path("official"), "train.epochs=1"});
    ASSERT_EQ(official.code, 0) << official.err;
    const Ended mapped =
        run({"train", "--config", KT_TINY_CONFIG, "data.path=" + path("ratings"),
             "run.dir=" + path("mapped"), "model.content=none", "train.optimizer.lr=0.02",
             "train.epochs=20", "train.global_batch=64"},
            {.ranks = 2});
    ASSERT_EQ(mapped.code, 0) << mapped.err;
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static std::string path(const std::string& name) { return (folder() / name).string(); }
  static Ended run(const Arguments& arguments, const Launch& launch = {}) {
    return run_program(folder() / "work", arguments, launch);
  }
  /// The one JSON document on stdout of a command that succeeds.
  static json run_json(const Arguments& arguments, const Launch& launch = {}) {
    const Ended ended = run(arguments, launch);
    EXPECT_EQ(ended.code, 0) << ended.err;
    json document = json::parse(ended.out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << ended.out;
    return document;
  }
  static json metrics(const std::string& name) {
    return json_file(folder() / name / "result.json").at("evaluation").at("metrics");
  }
  static std::vector<std::string> items_of(const json& recommendations) {
    std::vector<std::string> items;
    for (const json& entry : recommendations.at("recommendations"))
      items.push_back(entry.at("video_id"));
    return items;
  }
  static std::set<std::string> seen_in(const std::string& table, char delimiter,
                                       const std::string& user) {
    std::istringstream text(file_text(folder() / table));
    std::set<std::string> seen;
    for (std::string line; std::getline(text, line);) {
      std::istringstream fields(line);
      std::string who, what;
      std::getline(fields, who, delimiter);
      std::getline(fields, what, delimiter);
      if (who == user) seen.insert(what);
    }
    return seen;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Commands::shop_;

TEST_F(Commands, HelpHasAnExample) {
  for (const char* command :
       {"train", "synth", "import", "inspect", "analyze", "validate", "evaluate", "recommend"}) {
    const Ended ended = run({command, "--help"});
    EXPECT_EQ(ended.code, 0);
    EXPECT_THAT(ended.out, AllOf(HasSubstr("Example"), HasSubstr(std::string("kuaitrain "))))
        << command;
    EXPECT_THAT(ended.err, IsEmpty());
  }
  const Ended all = run({"--help"});
  EXPECT_EQ(all.code, 0);
  for (const char* command :
       {"train", "synth", "import", "inspect", "analyze", "validate", "evaluate", "recommend"})
    EXPECT_THAT(all.out, HasSubstr(command));
}

TEST_F(Commands, WrongArgumentsExitWithTwo) {
  for (const Arguments& arguments :
       {Arguments{"tarin"}, {"train", "--cofnig", "x"}, {"inspect"}, {"import", "somewhere"}}) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.code, 2) << arguments[0] << ended.out;
    EXPECT_THAT(ended.out, IsEmpty());
    EXPECT_THAT(ended.err, Not(IsEmpty()));
  }
}

TEST_F(Commands, JsonIsOneDocumentAloneOnStdout) {
  EXPECT_EQ(run_json({"synth", "--out", path("json-source"), "--scale", "0.0005", "--json"})
                .at("synthetic"),
            true);
  const json imported = run_json(
      {"--json", "import", path("json-source"), "--out", path("json-dataset"), "--shards", "4"});
  EXPECT_EQ(imported.at("shards"), 4);
  const json shown = run_json({"inspect", path("json-dataset"), "--json"});
  EXPECT_EQ(shown.at("manifest").at("hash"), imported.at("hash"));
  EXPECT_EQ(run_json({"validate", KT_TINY_CONFIG, "--json"}).at("valid"), true);

  const Arguments train{"train",
                        "--config",
                        KT_TINY_CONFIG,
                        "data.path=" + path("json-dataset"),
                        "run.dir=" + path("json-run"),
                        "--json"};
  const json trained = run_json(train, {.ranks = 2});
  EXPECT_EQ(trained, json_file(folder() / "json-run" / "result.json"));
  const json again = run_json(train, {.ranks = 2});
  EXPECT_EQ(again.at("weights_hash"), trained.at("weights_hash"));
  EXPECT_EQ(again.at("already_complete"), true);
  EXPECT_EQ(run_json({"evaluate", path("json-run"), "--json"}, {.ranks = 2}).at("metrics"),
            trained.at("evaluation").at("metrics"));
  EXPECT_THAT(
      run_json({"recommend", path("json-run"), "--user", "1", "--json"}).at("recommendations"),
      SizeIs(10));
  EXPECT_EQ(
      run_json({"recommend", path("json-run"), "--all-users", "--out", path("json.csv"), "--json"})
          .at("users"),
      imported.at("users"));
}

TEST_F(Commands, JsonOfAFaultLeavesStdoutEmpty) {
  const Ended ended = run({"evaluate", path("nowhere"), "--json"}, {.ranks = 2});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.out, IsEmpty());
  EXPECT_THAT(ended.errors(), SizeIs(1));
}

TEST_F(Commands, QuietSaysNothing) {
  const Ended ended = run({"inspect", path("dataset"), "--quiet"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.out + ended.err, IsEmpty());
}

TEST_F(Commands, WhatOneProcessDoesIsRefusedOnTwo) {
  for (const Arguments& arguments : {Arguments{"synth", "--out", path("twice")},
                                     {"validate", KT_TINY_CONFIG},
                                     {"inspect", path("dataset")},
                                     {"recommend", path("official"), "--user", "1"}}) {
    const Ended ended = run(arguments, {.ranks = 2});
    EXPECT_EQ(ended.code, 2) << arguments[0];
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("` runs as one process, but 2 tasks were")))
        << ended.err;
  }
  EXPECT_FALSE(fs::exists(path("twice")));
}

TEST_F(Commands, ValidateTellsEveryFault) {
  write_file(folder() / "faulty.yaml",
             "train:\n  epochs: -1\n  lr: 3\nmodle:\n  name: ncf\nevaluate:\n  k: few\n");
  const Ended ended = run({"validate", path("faulty.yaml"), "train.seed=x"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("faulty.yaml:2: train.epochs: got"),
                                          HasSubstr("faulty.yaml:3: got the unknown key train.lr"),
                                          HasSubstr("faulty.yaml:4: got the unknown key modle"),
                                          HasSubstr("faulty.yaml:7: evaluate.k"),
                                          HasSubstr("command line: train.seed=x")))
      << ended.err;
}

TEST_F(Commands, InspectDatasetShardAndCheckpoint) {
  const json dataset = run_json({"inspect", path("dataset"), "--json"});
  EXPECT_EQ(dataset.at("kind"), "dataset");
  EXPECT_EQ(dataset.at("manifest").at("users"), 321);
  const json shard = run_json({"inspect", path("dataset/shards/shard-0003.h5"), "--json"});
  EXPECT_EQ(shard.at("shard").at("rows"), dataset.at("manifest").at("shards").at(3).at("rows"));
  EXPECT_TRUE(shard.at("columns").contains("label"));
  const json checkpoint = run_json({"inspect", path("official/latest"), "--json"});
  EXPECT_EQ(checkpoint.at("kind"), "checkpoint");
  EXPECT_EQ(checkpoint.at("step"), json_file(folder() / "official" / "result.json").at("steps"));
  EXPECT_EQ(checkpoint.at("arrays").at("user_embedding"), json::array({321, 32}));
  EXPECT_THAT(run({"inspect", path("dataset")}).out, HasSubstr("a data set, every checksum right"));
}

TEST_F(Commands, InspectFindsAFlippedByte) {
  fs::copy(path("dataset"), path("flipped"), fs::copy_options::recursive);
  fs::copy(path("official/latest/"), path("step-000000000001"), fs::copy_options::recursive);
  flip_byte(folder() / "flipped" / "shards" / "shard-0003.h5");
  flip_byte(folder() / "step-000000000001" / "part-00000.h5");
  for (const auto& [argument, file] :
       {std::pair("flipped", "flipped/shards/shard-0003.h5"),
        std::pair("flipped/shards/shard-0003.h5", "flipped/shards/shard-0003.h5"),
        std::pair("step-000000000001", "step-000000000001/part-00000.h5")}) {
    const Ended ended = run({"inspect", path(argument)});
    EXPECT_EQ(ended.code, 2) << argument;
    EXPECT_THAT(ended.errors(), ElementsAre(AllOf(HasSubstr(file), HasSubstr("checksum"))))
        << argument;
  }
  EXPECT_EQ(run({"inspect", path("flipped/shards/shard-0002.h5")}).code, 0);
  const Ended absent = run({"inspect", path("absent")});
  EXPECT_EQ(absent.code, 2);
  EXPECT_THAT(absent.errors(), ElementsAre(HasSubstr("absent: no such file or folder")));
}

TEST_F(Commands, ScoresGiveTheSameMetricsAgain) {
  const json report = run_json(
      {"evaluate", path("official"), "--scores", path("scores.csv"), "--json"}, {.ranks = 2});
  const std::vector<Scored> scores = read_scores(folder() / "scores.csv");
  EXPECT_THAT(scores, SizeIs(9351));
  EXPECT_EQ(report.at("pairs"), 9351);
  EXPECT_EQ(report.at("metrics"), metrics("official"));
  EXPECT_NEAR(report.at("metrics").at("mse"), mean_squared_error(scores), 1e-9);
  EXPECT_NEAR(report.at("metrics").at("ndcg@10/ratio>=2"), ndcg(scores, 10, 2), 1e-9);
  EXPECT_NEAR(report.at("metrics").at("ndcg@5/ratio>=1"), ndcg(scores, 5, 1), 1e-9);
}

/// Mean over users of a column of the `--per-user` file, of those that have something there; weighted by pairs or not.
double mean_of_users(const fs::path& path, const std::string& name, bool by_pairs) {
  std::istringstream text(file_text(path));
  std::string line;
  std::getline(text, line);
  const auto fields_of = [](const std::string& record) {
    std::vector<std::string> fields;
    std::istringstream stream(record + ",");
    for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
    return fields;
  };
  const std::vector<std::string> header = fields_of(line);
  const auto at = std::find(header.begin(), header.end(), name) - header.begin();
  double sum = 0, weights = 0;
  while (std::getline(text, line)) {
    const std::vector<std::string> fields = fields_of(line);
    EXPECT_EQ(fields.size(), header.size());
    if (fields.at(at).empty()) continue;
    const double weight = by_pairs ? std::stod(fields.at(1)) : 1;
    sum += weight * std::stod(fields.at(at));
    weights += weight;
  }
  return sum / weights;
}

TEST_F(Commands, ValuesOfUsersGiveTheSameMetricsAgain) {
  for (const int ranks : {1, 3})
    ASSERT_EQ(
        run({"evaluate", path("official"), "--per-user", path(fmt::format("users-{}.csv", ranks))},
            {.ranks = ranks})
            .code,
        0);
  EXPECT_EQ(file_text(folder() / "users-1.csv"), file_text(folder() / "users-3.csv"));
  const json all = metrics("official");
  for (const char* name : {"ndcg@10/ratio>=2", "mae_macro", "xauc_user", "mrr/top-50",
                           "feature_mlp.ndcg@10_on_ids", "two_tower.recall_repeated_rows"})
    EXPECT_NEAR(mean_of_users(folder() / "users-1.csv", name, false), all.at(name), 1e-9) << name;
  for (const char* name : {"mse", "mae_clipped", "gauc@ratio>=1", "gauc@ratio>=2"})
    EXPECT_NEAR(mean_of_users(folder() / "users-1.csv", name, true), all.at(name), 1e-9) << name;

  write_file(folder() / "unlabelled.csv", "user_id,video_id\n1,2\n");
  const Ended unlabelled = run({"evaluate", path("official"), "--pairs", path("unlabelled.csv"),
                                "--per-user", path("none.csv")});
  EXPECT_EQ(unlabelled.code, 2);
  EXPECT_THAT(unlabelled.errors(),
              ElementsAre(HasSubstr("--per-user: the pairs of " + path("unlabelled.csv") +
                                    " have no labels (watch_ratio)")));
  const Ended twice = run(
      {"evaluate", path("official"), "--scores", path("one.csv"), "--per-user", path("one.csv")});
  EXPECT_EQ(twice.code, 2);
  EXPECT_THAT(twice.errors(), ElementsAre(HasSubstr("--per-user: got " + path("one.csv") +
                                                    ", the file of --scores")));
  EXPECT_FALSE(fs::exists(folder() / "one.csv"));
}

TEST_F(Commands, PairsOfTheUsersChoice) {
  ASSERT_EQ(run({"evaluate", path("official"), "--scores", path("all.csv")}).code, 0);
  const std::vector<Scored> all = read_scores(folder() / "all.csv");
  std::string text = "watch_ratio,video_id,user_id\n";  // in any order
  for (size_t k = 500; k < 800; ++k)
    text += fmt::format("{},{},{}\n", all[k].label, all[k].item, all[k].user);
  write_file(folder() / "pairs.csv", text);
  const json report = run_json({"evaluate", path("official"), "--pairs", path("pairs.csv"),
                                "--scores", path("some.csv"), "--json"},
                               {.ranks = 2});
  const std::vector<Scored> some = read_scores(folder() / "some.csv");
  ASSERT_THAT(some, SizeIs(300));
  for (size_t k = 0; k < some.size(); ++k) {
    EXPECT_EQ(some[k].user + " " + some[k].item, all[500 + k].user + " " + all[500 + k].item);
    EXPECT_NEAR(some[k].score, all[500 + k].score, 1e-5);
  }
  EXPECT_NEAR(report.at("metrics").at("mse"), mean_squared_error(some), 1e-9);

  write_file(folder() / "strange.csv", "user_id,video_id,watch_ratio\n1,2,0.5\n1,99999,0.5\n");
  for (const int ranks : {0, 2}) {
    const Ended ended =
        run({"evaluate", path("official"), "--pairs", path("strange.csv")}, {.ranks = ranks});
    EXPECT_EQ(ended.code, 2);
    EXPECT_THAT(ended.errors(),
                ElementsAre(HasSubstr("strange.csv:3: video_id \"99999\" is not in")))
        << ended.err;
  }
}

TEST_F(Commands, RecommendTheBestOfTheCatalogue) {
  const std::string user = "14";
  const json plain =
      run_json({"recommend", path("official"), "--user", user, "--top", "480", "--json"});
  const std::vector<std::string> ranked = items_of(plain);
  EXPECT_EQ(std::set<std::string>(ranked.begin(), ranked.end()).size(), 480U);  // all videos
  double last = INFINITY;
  for (const json& entry : plain.at("recommendations")) {
    EXPECT_LE(entry.at("score").get<double>(), last);
    last = entry.at("score");
  }
  EXPECT_THAT(plain.at("recommendations").at(0).at("caption").get<std::string>() +
                  plain.at("recommendations").at(1).at("caption").get<std::string>(),
              Not(IsEmpty()));

  // What is left out, and nothing else, is missing from the same order.
  const std::set<std::string> seen = seen_in("source/big_matrix.csv", ',', user);
  ASSERT_GT(seen.size(), 5U);
  std::vector<std::string> unseen, rest;
  std::copy_if(ranked.begin(), ranked.end(), std::back_inserter(unseen),
               [&](const std::string& item) { return !seen.contains(item); });
  EXPECT_EQ(items_of(run_json({"recommend", path("official"), "--user", user, "--top", "480",
                               "--exclude-seen", "--json"})),
            unseen);
  write_file(folder() / "exclude.txt", ranked[0] + "\n" + ranked[2] + ", " + ranked[3] + "\n");
  rest = {ranked[1], ranked[4], ranked[5]};
  EXPECT_EQ(items_of(run_json({"recommend", path("official"), "--user", user, "--top", "3",
                               "--exclude", path("exclude.txt"), "--json"})),
            rest);
}

TEST_F(Commands, RecommendForAllUsers) {
  ASSERT_EQ(run({"recommend", path("official"), "--all-users", "--top", "4", "--exclude-seen",
                 "--out", path("lists.csv")})
                .code,
            0);
  const auto rows = csv_rows(folder() / "lists.csv", "user_id,rank,video_id,score");
  ASSERT_THAT(rows, SizeIs(321 * 4));
  std::vector<std::string> listed;
  for (const auto& row : rows)
    if (row[0] == "14") listed.push_back(row[2]);
  EXPECT_EQ(listed, items_of(run_json({"recommend", path("official"), "--user", "14", "--top", "4",
                                       "--exclude-seen", "--json"})));
}

TEST_F(Commands, RecommendRefuses) {
  const auto message = [](const Ended& ended) {
    EXPECT_EQ(ended.code, 2);
    EXPECT_THAT(ended.errors(), SizeIs(1)) << ended.err;
    return ended.errors().empty() ? "" : ended.errors()[0];
  };
  EXPECT_THAT(message(run({"recommend", path("official"), "--user", "nobody"})),
              HasSubstr("user nobody is not in the data set; expected one of its 321 ids"));
  EXPECT_THAT(message(run({"recommend", path("official")})), HasSubstr("give either --user U, or"));
  EXPECT_THAT(message(run({"recommend", path("official"), "--all-users"})),
              HasSubstr("needs --out"));
  EXPECT_THAT(message(run({"recommend", path("official"), "--user", "14", "--top", "0"})),
              HasSubstr("--top: got 0"));
  write_file(folder() / "no-video.txt", "1 2 movie\n");
  EXPECT_THAT(message(run({"recommend", path("official"), "--user", "14", "--exclude",
                           path("no-video.txt")})),
              HasSubstr("no-video.txt: video movie is not in the data set"));
}

TEST_F(Commands, AnotherTableTrainsIsEvaluatedAndRecommendsFrom) {
  const json manifest = json_file(folder() / "ratings" / "manifest.json");
  EXPECT_EQ(manifest.at("test_only_users"), 1);
  EXPECT_EQ(manifest.at("test_only_items"), 1);
  EXPECT_EQ(manifest.at("test_rows"), 203);
  const Ended shown = run({"inspect", path("ratings")});
  EXPECT_THAT(shown.out, HasSubstr("1 users and 1 items in test only"));

  const json result = json_file(folder() / "mapped" / "result.json");
  EXPECT_EQ(result.at("evaluation").at("pairs"), 203);
  EXPECT_LT(result.at("epochs").back().at("train_loss"),
            result.at("epochs").front().at("train_loss"));
  const json& evaluation = result.at("evaluation");
  EXPECT_EQ(evaluation.at("untrained").at("users"), 1);
  EXPECT_EQ(evaluation.at("untrained").at("items"), 1);
  EXPECT_GT(evaluation.at("untrained").at("pairs"), 0);
  EXPECT_TRUE(evaluation.at("untrained").at("metrics").contains("mse"));
  EXPECT_LT(evaluation.at("metrics").at("mse"), evaluation.at("chance").at("mse"))
      << "learns nothing";

  ASSERT_EQ(run({"evaluate", path("mapped"), "--scores", path("mapped.csv")}, {.ranks = 3}).code,
            0);
  const std::vector<Scored> scores = read_scores(folder() / "mapped.csv");
  ASSERT_THAT(scores, SizeIs(203));
  EXPECT_NEAR(mean_squared_error(scores), evaluation.at("metrics").at("mse"), 1e-9);
  EXPECT_TRUE(std::any_of(scores.begin(), scores.end(), [](const Scored& s) {
    return s.user == "user 1" && s.item == "unseen";
  }));

  const json best = run_json(
      {"recommend", path("mapped"), "--user", "user 3", "--top", "41", "--exclude-seen", "--json"});
  for (const std::string& item : seen_in("ratings.tsv", '\t', "user 3"))
    EXPECT_THAT(items_of(best), Not(Contains(item)));
  EXPECT_THAT(items_of(best), Contains("unseen"));
  const Ended untrained = run({"recommend", path("mapped"), "--user", "ghost"});
  EXPECT_EQ(untrained.code, 0);
  EXPECT_THAT(untrained.err, HasSubstr("user ghost has no training rows"));
}

TEST_F(Commands, SynthAndImportOverwriteNothing) {
  const std::string before = file_text(folder() / "dataset" / "manifest.json");
  for (const Arguments& arguments : {Arguments{"import", path("source"), "--out", path("dataset")},
                                     {"synth", "--out", path("source")}}) {
    const Ended ended = run(arguments);
    EXPECT_EQ(ended.code, 2);
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("exists already"))) << ended.err;
  }
  EXPECT_EQ(file_text(folder() / "dataset" / "manifest.json"), before);
}

TEST_F(Commands, TheDefaultDataSetIsMadeWhereThereIsNone) {
  // The one command of the first page, with fewer steps.
  const fs::path here = folder() / "fresh" / "work";
  const Arguments arguments{"train.max_steps=5", "checkpoint.every_steps=0"};
  const Ended first = run_program(here, arguments, {.ranks = 2});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(names_in(here), ElementsAre("kuaitrain-data", "runs"));
  EXPECT_THAT(first.out + first.err,
              AllOf(HasSubstr("synthetic"), HasSubstr("not those of the real KuaiRec"),
                    HasSubstr("Evaluation of ")));
  const Ended second = run_program(here, arguments, {.ranks = 2});
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.out, HasSubstr("this run is complete at step 5; nothing to train"));
}

}  // namespace
}  // namespace kt
