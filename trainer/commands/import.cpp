#include "io/dataset/import.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "sharding/assignment.h"
#include "trainer/commands/commands.h"

namespace kt {
namespace {

void log_report(const ImportReport& report, const std::string& out) {
  const auto row = [](std::string_view name, auto value) {
    log_info("  {:<24}{:>14}", name, value);
  };
  log_info("{}", out);
  row("users", report.users);
  row("items", report.items);
  row("training rows read", report.rows_read);
  row("duplicates dropped", report.duplicates);
  row("training rows", report.rows);
  if (report.test_rows_read > 0) {
    row("test rows read", report.test_rows_read);
    row("test rows", report.test_rows);
    row("users in test only", report.test_only_users);
    row("items in test only", report.test_only_items);
  }
  row("shards", report.shards);
  row("largest shard's share", fmt::format("{:.2f} %", 100 * report.largest_shard_share));
  row("seconds", fmt::format("{:.2f}", report.seconds));
  for (const auto& [file, reasons] : report.malformed)
    for (const auto& [reason, count] : reasons)
      log_warning("{}: dropped {} malformed rows: {}", file, count, reason);
  if (report.rows_in_test > 0)
    log_warning("{} training rows are of pairs that the test table holds too", report.rows_in_test);
  const auto warn_of_foreign = [](std::string_view what, int64_t test_only, int64_t all,
                                  const auto& foreign) {
    if (!foreign) return;
    log_warning(
        "{} of the {} {} of the test table have no training row, such as {}; those of the training "
        "table are such as {}: nothing is learnt about the others. Are the ids spelt alike in "
        "both?",
        test_only, all, what, shown(foreign->first), shown(foreign->second));
  };
  warn_of_foreign("users", report.test_only_users, report.test_users, report.foreign_users);
  warn_of_foreign("items", report.test_only_items, report.test_items, report.foreign_items);
}

nlohmann::json to_json(const ImportReport& report, const std::string& out) {
  return {{"path", out},
          {"hash", report.hash},
          {"users", report.users},
          {"items", report.items},
          {"train_rows_read", report.rows_read},
          {"train_rows", report.rows},
          {"test_rows_read", report.test_rows_read},
          {"test_rows", report.test_rows},
          {"test_only_users", report.test_only_users},
          {"test_only_items", report.test_only_items},
          {"train_rows_in_test", report.rows_in_test},
          {"dropped", {{"duplicates", report.duplicates}, {"malformed", report.malformed}}},
          {"shards", report.shards},
          {"largest_shard_share", report.largest_shard_share},
          {"seconds", report.seconds}};
}

}  // namespace

void add_import(CLI::App& app, Action& action) {
  struct Arguments {
    ImportOptions options;
    std::string map, test, delimiter = ",", quote = "double";
    bool no_header = false, keep_duplicates = false, skip_malformed = false;
  };
  CLI::App* command = app.add_subcommand("import", "Turn CSV tables into a data set of shards");
  const auto arguments = std::make_shared<Arguments>();
  command
      ->add_option("source", arguments->options.source,
                   "Folder in the official KuaiRec layout, or with --map a table")
      ->required()
      ->type_name("SRC");
  command->add_option("--out", arguments->options.out, "Data set to make; nothing is overwritten")
      ->required()
      ->type_name("DATASET");
  command->add_option("--shards", arguments->options.shards, "Logical shards, a power of two")
      ->type_name("V")
      ->check(
          whole_number(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command
      ->add_option("--map", arguments->map,
                   "The columns of a table in another layout; times are seconds since 1970 or ISO "
                   "(2020-07-05 12:30:11, UTC unless an offset follows)")
      ->type_name("user=COL,item=COL,label=COL[,time=COL]");
  command->add_option("--test", arguments->test, "With --map: the table to evaluate on")
      ->type_name("TABLE");
  command
      ->add_option("--delimiter", arguments->delimiter,
                   "With --map: what separates the columns, as ; or ::; \\t or tab for a tabulator")
      ->type_name("C")
      ->capture_default_str();
  command
      ->add_option("--quote", arguments->quote,
                   "With --map: double: a field may be in \"quotes\"; none: a quote is text")
      ->type_name("double|none")
      ->check(CLI::IsMember({"double", "none"}).description(""))
      ->capture_default_str();
  command->add_flag("--no-header", arguments->no_header,
                    "With --map: the tables have no line of names; COL is a number, from 1");
  command->add_flag("--keep-duplicates", arguments->keep_duplicates,
                    "Keep rows of equal user, video, durations and timestamp");
  command->add_flag("--skip-malformed", arguments->skip_malformed,
                    "Drop malformed rows and count them by reason, instead of ending");
  command
      ->add_option("--threads", arguments->options.threads,
                   "0: one a processor; the data set does not depend on it")
      ->type_name("N")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  kuaitrain import \"KuaiRec 2.0/data\" --out kuairec\n"
      "  kuaitrain import ratings.tsv --delimiter tab --map "
      "user=user_id,item=movie_id,label=rating \\\n"
      "      --test held_out.tsv --out movies\n"
      "  kuaitrain import ml-1m/ratings.dat --delimiter :: --no-header --map "
      "user=1,item=2,label=3,time=4 --out ml");
  command->callback([arguments, &action, command] {
    const auto given = [&](const char* name) { return command->get_option(name)->count() > 0; };
    const bool map_given = given("--map"), test_given = given("--test");
    // The official layout is as it is.
    std::string of_map;
    for (const char* name : {"--delimiter", "--quote", "--no-header"})
      if (of_map.empty() && given(name)) of_map = name;
    action = [arguments, map_given, test_given, of_map](const GlobalOptions& global) {
      refuse_several_ranks("import");
      ImportOptions& options = arguments->options;
      if (arguments->no_header) options.dialect.header = Header::kNone;
      if (arguments->quote == "none") options.dialect.quotes = Quotes::kNone;
      if (map_given) options.map = parse_column_map(arguments->map, options.dialect.header);
      if (test_given) options.test = arguments->test;
      if (!of_map.empty() && !options.map)
        user_error("{}: belongs to --map; the official layout has commas, quotes and a header",
                   of_map);
      options.dialect.delimiter = parse_delimiter(arguments->delimiter);
      if (arguments->keep_duplicates) options.duplicates = Duplicates::kKeep;
      if (arguments->skip_malformed) options.on_fault = OnFault::kSkip;
      options.assign_users = assign_users_to_shards;
      const ImportReport report = import_dataset(options);
      log_report(report, options.out.string());
      if (global.json) fmt::print("{}\n", to_text(to_json(report, options.out.string()), 2));
      return static_cast<int>(kExitDone);
    };
  });
}

}  // namespace kt
