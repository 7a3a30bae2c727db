#include "trainer/supervision/batch_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "launch/base/errors.h"

namespace kt {
namespace {

constexpr const char* kWritten =
    "# Written by `kuaitrain slurm`; submit it by `sbatch`. docs/slurm.md says how it ends.";

/// Lines of a template, each found by how it begins.
class Script {
 public:
  explicit Script(const std::string& text) {
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines_.push_back(line);
  }

  /// Puts `line` in place of the one that begins with `start`.
  void replace(const std::string& start, const std::string& line) { line_with(start) = line; }
  /// Sets an option of sbatch, which the template may have switched off by a second #.
  void option(const std::string& name, const std::string& value) {
    std::string& line = line_with(fmt::format("#SBATCH --{}=", name));
    line = fmt::format("#SBATCH --{}={}", name, value);
  }

  std::string text() const { return fmt::format("{}\n", fmt::join(lines_, "\n")); }

 private:
  std::string& line_with(const std::string& start) {
    const auto begins = [&](const std::string& line) {
      return line.starts_with(start) || line.starts_with("#" + start);
    };
    const auto found = std::ranges::find_if(lines_, begins);
    if (found == lines_.end())
      user_error(
          "slurm/train.sbatch: got no line `{}...`, expected the script that comes with the "
          "program; restore it",
          start);
    return *found;
  }

  std::vector<std::string> lines_;
};

}  // namespace

std::string batch_script(const std::string& text, const BatchJob& job) {
  Script script(text);
  script.replace("# Set what", kWritten);
  script.option("job-name", job.name);
  script.option("nodes", std::to_string(job.nodes));
  script.option("ntasks-per-node", std::to_string(job.ranks_per_node));
  script.option("cpus-per-task", std::to_string(job.threads));
  if (!job.time.empty()) script.option("time", job.time);
  if (job.memory_mb > 0) script.option("mem", fmt::format("{}M", job.memory_mb));
  if (!job.partition.empty()) script.option("partition", job.partition);
  if (!job.account.empty()) script.option("account", job.account);
  if (job.gpus_per_node > 0) script.option("gpus-per-node", std::to_string(job.gpus_per_node));

  std::vector<std::string> arguments;
  for (const std::string& argument : job.arguments) arguments.push_back(quoted(argument));
  script.replace("folder=", "folder=" + quoted(job.folder));
  script.replace("program=", "program=" + quoted(job.program));
  script.replace("launcher=", "launcher=" + quoted(job.launcher));
  script.replace("arguments=", fmt::format("arguments=({})", fmt::join(arguments, " ")));
  return script.text();
}

bool is_batch_script(const std::string& text) {
  return text.find(fmt::format("\n{}\n", kWritten)) != text.npos;
}

int64_t signal_lead_s(const std::string& script) {
  static const std::regex pattern("\n#SBATCH --signal=B:USR2@([0-9]{1,6})\n");
  std::smatch match;
  if (!std::regex_search(script, match, pattern))
    user_error(
        "slurm/train.sbatch: got no line `#SBATCH --signal=B:USR2@SECONDS`, expected the "
        "script that comes with the program; restore it");
  return std::stoll(match[1]);
}

std::optional<int64_t> seconds_of(const std::string& time) {
  static const std::regex pattern("(?:([0-9]{1,4})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])");
  std::smatch match;
  if (!std::regex_match(time, match, pattern)) return std::nullopt;
  const int64_t days = match[1].matched ? std::stoll(match[1]) : 0;
  return ((days * 24 + std::stoll(match[2])) * 60 + std::stoll(match[3])) * 60 +
         std::stoll(match[4]);
}

std::string quoted(const std::string& text) {
  constexpr const char* kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,@%+-";
  if (!text.empty() && text.find_first_not_of(kPlain) == text.npos) return text;
  std::string word = "'";
  for (const char c : text) {
    if (c == '\'')
      word += "'\\''";
    else
      word += c;
  }
  return word + "'";
}

}  // namespace kt
