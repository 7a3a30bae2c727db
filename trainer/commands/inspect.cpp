#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/dataset/dataset.h"
#include "io/files/json_text.h"
#include "io/run/checkpoint.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"

namespace kt {
namespace {

using nlohmann::json;

void log_dataset(const json& what) {
  const json& manifest = what.at("manifest");
  const auto row = [](std::string_view name, const std::string& value) {
    log_info("  {:<24}{}", name, value);
  };
  const auto text = [&](const char* key) { return to_text(manifest.at(key)); };
  log_info("{}: a data set, every checksum right", what.at("path").get<std::string>());
  row("hash", manifest.at("hash"));
  row("kind, label", fmt::format("{}, {}", manifest.at("kind").get<std::string>(),
                                 manifest.at("label").get<std::string>()));
  row("users, items", fmt::format("{}, {}", text("users"), text("items")));
  row("training rows", fmt::format("{} of {} read", text("train_rows"), text("train_rows_read")));
  row("test rows",
      fmt::format("{} of {} read; {} users and {} items in test only", text("test_rows"),
                  text("test_rows_read"), text("test_only_users"), text("test_only_items")));
  row("dropped", to_text(manifest.at("dropped")));
  row("shards",
      fmt::format("{}, the largest has {:.2f} % of the rows", manifest.at("shards").size(),
                  100 * manifest.at("largest_shard_share").get<double>()));
  for (const auto& [table, columns] : manifest.at("columns").items())
    for (const auto& [name, statistics] : columns.items())
      row(table + " " + name, to_text(statistics));
  row("size", fmt::format("{:.1f} MB in {} files", what.at("bytes").get<double>() / 1e6,
                          manifest.at("files").size()));
  for (const auto& [name, entry] : manifest.at("files").items())
    if (!name.starts_with("shards/"))
      row("  " + name, fmt::format("{} bytes", to_text(entry.at("bytes"))));
}

void log_file(const json& what) {
  log_info("{}: {} bytes, its checksum is right", what.at("path").get<std::string>(),
           to_text(what.at("bytes")));
  if (what.contains("shard")) log_info("  {:<34}{}", "shard", to_text(what.at("shard")));
  for (const auto& [name, column] : what.at("columns").items())
    log_info("  {:<34}{:<9}{}", name, column.at("type").get<std::string>(),
             to_text(column.at("shape")));
}

void log_checkpoint(const json& what) {
  log_info("{}: a checkpoint of step {}, every checksum right", what.at("path").get<std::string>(),
           to_text(what.at("step")));
  for (const auto& [name, shape] : what.at("arrays").items())
    log_info("  {:<34}{}", name, to_text(shape));
  log_info("  {:.1f} MB in {} parts", what.at("bytes").get<double>() / 1e6,
           what.at("parts").size());
}

/// Checkpoints are known by their folder's name, `step-...`, one set aside by `damaged-step-...`.
bool is_checkpoint(const std::filesystem::path& folder) {
  const auto name = std::filesystem::canonical(folder).filename().string();
  return name.find("step-") != name.npos;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "inspect",
      "Show what a data set, a file of one, or a checkpoint holds; verify its checksums");
  const auto path = std::make_shared<std::filesystem::path>();
  command->add_option("path", *path, "Folder of a data set or checkpoint, or a shard's file")
      ->required()
      ->type_name("PATH");
  command->footer(
      "Examples:\n"
      "  kuaitrain inspect kuairec\n"
      "  kuaitrain inspect kuairec/shards/shard-0003.h5");
  command->callback([path, &action] {
    action = [path](const GlobalOptions& global) {
      refuse_several_ranks("inspect");
      if (!std::filesystem::exists(*path))
        user_error("{}: no such file or folder, expected a data set, a shard or a checkpoint",
                   path->string());
      json what;
      if (!std::filesystem::is_directory(*path)) {
        what = describe_dataset_file(*path);
        log_file(what);
      } else if (is_checkpoint(*path)) {
        what = describe_checkpoint(*path);
        log_checkpoint(what);
      } else {
        what = describe_dataset(*path);
        log_dataset(what);
      }
      if (global.json) fmt::print("{}\n", to_text(what, 2));
      return static_cast<int>(kExitDone);
    };
  });
}

}  // namespace kt
