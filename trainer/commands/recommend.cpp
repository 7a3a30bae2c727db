#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <span>
#include <sstream>

#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/evaluation/score_files.h"
#include "trainer/evaluation/seen_items.h"
#include "trainer/run/scored_runs.h"

namespace kt {
namespace {

struct RecommendArguments {
  RunArguments runs;
  std::string user;
  bool all_users = false;
  std::string out;
  int64_t top = 10;
  bool exclude_seen = false;
  std::string exclude;
};

constexpr const char* kCsvHeader = "user_id,rank,video_id,score\n";

/// Those of a file of ids separated by white space or commas are left out. Shapes: result [items].
std::vector<uint8_t> read_exclusions(const std::string& path, const IdTables& ids) {
  std::vector<uint8_t> excluded(ids.item_id.size(), 0);
  if (path.empty()) return excluded;
  std::string text = read_text_file(path);
  std::replace(text.begin(), text.end(), ',', '\n');
  const auto items = index_of_ids(ids.item_id);
  std::istringstream stream(text);
  for (std::string id; stream >> id;) {
    const auto found = items.find(id);
    if (found == items.end())
      user_error("{}: video {} is not in the data set; expected video ids", path, id);
    excluded[found->second] = 1;
  }
  return excluded;
}

/// The best of the whole catalogue for each user. Shapes: users dense.
std::vector<std::vector<Recommendation>> recommend(ScoredRuns& scored, const IdTables& ids,
                                                   std::span<const int32_t> users,
                                                   const RecommendArguments& arguments,
                                                   MpiCommunicator& comm) {
  const Problem& problem = scored.problem();
  const std::vector<uint8_t> excluded = read_exclusions(arguments.exclude, ids);
  SeenItems seen;
  if (arguments.exclude_seen)
    seen = seen_items(problem, users, std::vector<int32_t>(users.size(), 0), comm);
  std::vector<int32_t> rows;
  for (const int32_t user : users) rows.push_back(static_cast<int32_t>(problem.user_row(user)));
  ThreadPool pool(static_cast<int>(problem.config.parallel.threads));
  scored.find_devices(comm);
  scored.prepare(comm, pool);
  auto lists = scored.predictor->best({rows, arguments.top, excluded, seen}, pool);
  if (scored.devices) scored.devices->finish();
  return lists;
}

std::string csv_of(const std::string& user, const std::vector<Recommendation>& list,
                   const IdTables& ids) {
  std::string text;
  for (size_t k = 0; k < list.size(); ++k)
    text += fmt::format("{},{},{},{}\n", csv_field(user), k + 1,
                        csv_field(ids.item_id[list[k].item]), list[k].score);
  return text;
}

int run_recommend(const RecommendArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("recommend");
  if (arguments.all_users == !arguments.user.empty())
    user_error("recommend: give either --user U, or --all-users with --out FILE");
  if (arguments.all_users && arguments.out.empty())
    user_error("recommend: --all-users needs --out FILE");
  std::optional<ResultFile> out;
  if (!arguments.out.empty()) out.emplace(arguments.out);
  MpiSession& session = MpiSession::start();
  ScoredRuns scored = open_scored_runs(arguments.runs.options(), session.communicator());
  const Dataset& dataset = scored.problem().dataset;
  const IdTables ids = dataset.read_ids();
  if (arguments.all_users) {
    std::vector<int32_t> users(ids.user_id.size());
    std::iota(users.begin(), users.end(), 0);
    const auto lists = recommend(scored, ids, users, arguments, session.communicator());
    std::string text = kCsvHeader;
    for (size_t user = 0; user < lists.size(); ++user)
      text += csv_of(ids.user_id[user], lists[user], ids);
    out->write(text);
    log_info("{}: recommendations for {} users", arguments.out, lists.size());
    if (global.json)
      fmt::print("{}\n", to_text({{"path", arguments.out},
                                  {"users", ids.user_id.size()},
                                  {"checkpoint", scored.checkpoint}},
                                 2));
    return kExitDone;
  }

  const auto users = index_of_ids(ids.user_id);
  const auto user = users.find(arguments.user);
  if (user == users.end())
    user_error("recommend: user {} is not in the data set; expected one of its {} ids, such as {}",
               arguments.user, ids.user_id.size(), ids.user_id.front());
  if (ids.user_rows[user->second] == 0)
    log_warning("user {} has no training rows: the scores are those of an untrained user",
                arguments.user);
  const std::vector<Recommendation> best =
      recommend(scored, ids, std::span(&user->second, 1), arguments, session.communicator())
          .front();
  if (out) out->write(kCsvHeader + csv_of(arguments.user, best, ids));
  const ItemTexts texts = dataset.read_item_texts();
  nlohmann::json rows = nlohmann::json::array();
  log_info("{:>4}  {:>10}  {:>8}  {:<14}  {}", "rank", "video", "score", "category", "caption");
  for (size_t k = 0; k < best.size(); ++k) {
    // One line a video, whatever line ends its caption has.
    std::string caption = texts.caption[best[k].item];
    std::replace_if(
        caption.begin(), caption.end(), [](char c) { return c == '\r' || c == '\n'; }, ' ');
    log_info("{:>4}  {:>10}  {:>8.4f}  {:<14}  {}", k + 1, ids.item_id[best[k].item], best[k].score,
             texts.category[best[k].item], caption);
    rows.push_back({{"rank", k + 1},
                    {"video_id", ids.item_id[best[k].item]},
                    {"score", best[k].score},
                    {"category", texts.category[best[k].item]},
                    {"caption", caption}});
  }
  if (global.json)
    fmt::print("{}\n", to_text({{"user_id", arguments.user},
                                {"checkpoint", scored.checkpoint},
                                {"recommendations", rows}},
                               2));
  return kExitDone;
}

}  // namespace

void add_recommend(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "recommend", "The best videos of the whole catalogue for a user, with a trained run");
  const auto arguments = std::make_shared<RecommendArguments>();
  add_runs(*command, arguments->runs);
  command->add_option("--user", arguments->user, "Id of the user")->type_name("U");
  command->add_option("--top", arguments->top, "How many")
      ->check(whole_number(1, std::numeric_limits<int32_t>::max()))
      ->type_name("K")
      ->capture_default_str();
  command->add_flag("--exclude-seen", arguments->exclude_seen,
                    "Leave out what the user has in the training rows");
  command
      ->add_option("--exclude", arguments->exclude,
                   "Leave out these videos: a file of ids, by white space or commas")
      ->type_name("FILE");
  command->add_flag("--all-users", arguments->all_users, "For every user; needs --out");
  command->add_option("--out", arguments->out, "CSV to write: user_id,rank,video_id,score")
      ->type_name("FILE");
  command->footer("Example:\n  kuaitrain recommend runs/ncf --user 14 --top 10 --exclude-seen");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_recommend(*arguments, global); };
  });
}

}  // namespace kt
