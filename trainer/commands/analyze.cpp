#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/dataset/dataset.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/process/cpus.h"
#include "launch/process/mpi_session.h"
#include "trainer/analysis/analysis.h"
#include "trainer/commands/commands.h"
#include "trainer/reports/data_page.h"

namespace kt {

void add_analyze(CLI::App& app, Action& action) {
  struct Arguments {
    std::string dataset, out;
    int threads = 0;
  };
  CLI::App* command = app.add_subcommand(
      "analyze", "Show what a data set looks like: a page of tables and pictures");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("dataset", arguments->dataset, "Data set made by `kuaitrain import`")
      ->required()
      ->type_name("DATASET");
  command
      ->add_option("--out", arguments->out,
                   "Page to write, one file that needs no network; with --json it may be left out")
      ->type_name("F.html");
  command
      ->add_option("--threads", arguments->threads,
                   "0: one a processor; the numbers do not depend on it")
      ->type_name("N")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  kuaitrain analyze kuairec --out kuairec.html\n"
      "  kuaitrain analyze kuairec --json > kuairec.json");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) {
      refuse_several_ranks("analyze");
      if (arguments->out.empty() && !global.json)
        user_error(
            "analyze: got neither --out nor --json, expected one; name a page: --out F.html");
      const auto start = Clock::now();
      const Dataset dataset = Dataset::open(arguments->dataset);
      std::optional<ResultFile> page;
      if (!arguments->out.empty()) page.emplace(arguments->out);
      ThreadPool pool(arguments->threads > 0 ? arguments->threads : usable_cpus());
      const nlohmann::json numbers = analyze(dataset, pool);
      if (page) {
        page->write(data_page(numbers));
        log_info("{}: {} training rows, {} test rows, {} users, {} videos in {:.1f} s",
                 arguments->out, dataset.train_rows(), dataset.test_rows(), dataset.users(),
                 dataset.items(), seconds_since(start));
      }
      if (global.json) fmt::print("{}\n", to_text(numbers, 2));
      return static_cast<int>(kExitDone);
    };
  });
}

}  // namespace kt
