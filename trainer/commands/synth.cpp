#include "io/synth/synth.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"

namespace kt {

void add_synth(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "synth", "Write a synthetic replica of KuaiRec 2.0 as CSV files in the official layout");
  const auto options = std::make_shared<SynthOptions>();
  command->add_option("--out", options->out, "Folder to make; nothing is overwritten")
      ->required()
      ->type_name("DIR");
  command
      ->add_option(
          "--scale", options->scale,
          "Size: rows grow with it, users and videos with its square root; 1 is KuaiRec's own")
      ->type_name("S")
      ->check(number(0, 10))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Another seed, another replica")
      ->type_name("K")
      ->check(whole_number(0, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command->footer(
      "Example:\n"
      "  kuaitrain synth --out replica-csv --scale 0.05\n"
      "  kuaitrain import replica-csv --out replica");
  command->callback([options, &action] {
    action = [options](const GlobalOptions& global) {
      refuse_several_ranks("synth");
      const SynthReport report = synthesize(*options);
      const SynthSizes& sizes = report.sizes;
      const std::string out = options->out.string();
      log_info("{}: a synthetic replica, not KuaiRec (scale {}, seed {})", out, options->scale,
               options->seed);
      log_info("  {} users, {} videos; big {} rows ({} duplicates), small {} rows, daily {} rows",
               sizes.users, sizes.videos, sizes.big_rows,
               sizes.big_duplicates + sizes.big_event_duplicates, sizes.small_rows(),
               sizes.daily_rows);
      log_info("  {:.1f} MB in {:.1f} s; next: kuaitrain import {} --out DATASET",
               static_cast<double>(report.bytes) / 1e6, report.seconds, out);
      if (global.json)
        fmt::print("{}\n", to_text({{"path", out},
                                    {"synthetic", true},
                                    {"scale", options->scale},
                                    {"seed", options->seed},
                                    {"users", sizes.users},
                                    {"videos", sizes.videos},
                                    {"small_users", sizes.small_users},
                                    {"small_videos", sizes.small_videos},
                                    {"big_rows", sizes.big_rows},
                                    {"big_duplicates", sizes.big_duplicates},
                                    {"big_event_duplicates", sizes.big_event_duplicates},
                                    {"small_rows", sizes.small_rows()},
                                    {"daily_rows", sizes.daily_rows},
                                    {"social_rows", sizes.social_rows},
                                    {"bytes", report.bytes},
                                    {"seconds", report.seconds}},
                                   2));
      return static_cast<int>(kExitDone);
    };
  });
}

}  // namespace kt
