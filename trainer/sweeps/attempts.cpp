#include "trainer/sweeps/attempts.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>

#include "io/files/checksum.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/process/host.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path file_of(const fs::path& trial, int64_t number) {
  return trial / fmt::format("attempt-{}.json", number);
}

/// When the process started. Units: ticks since the boot; -1 when there is none.
int64_t start_of(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text, '\0')) return -1;
  // pid (name) state ...; the name may hold anything. The start is the 22nd field, a zombie has ended.
  std::istringstream rest(text.substr(text.rfind(')') + 1));
  std::string field;
  int64_t start = -1;
  for (int k = 3; k < 22; ++k) {
    rest >> field;
    if (k == 3 && field == "Z") return -1;
  }
  rest >> start;
  return start;
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

json json_of(const Attempt& attempt) {
  json out = {{"worker",
               {{"machine", attempt.worker.machine},
                {"pid", attempt.worker.pid},
                {"start", attempt.worker.start}}},
              {"epochs", attempt.epochs}};
  if (!attempt.exit) return out;
  out["exit"] = *attempt.exit;
  out["counts"] = attempt.counts;
  if (!attempt.last_lines.empty()) out["last_lines"] = attempt.last_lines;
  if (!attempt.result.is_null()) out["result"] = attempt.result;
  return out;
}

Attempt attempt_of(const json& file, int64_t number) {
  Attempt attempt{.number = number};
  const json& worker = file.at("worker");
  attempt.worker = {worker.at("machine"), worker.at("pid"), worker.at("start")};
  attempt.epochs = file.at("epochs");
  if (!file.contains("exit")) return attempt;
  attempt.exit = file.at("exit").get<int>();
  attempt.counts = file.at("counts");
  attempt.last_lines = file.value("last_lines", "");
  attempt.result = file.value("result", json());
  return attempt;
}

}  // namespace

Worker this_worker() {
  static const std::string machine = [] {
    std::error_code ignored;
    return fmt::format("{} {} {}", host_name(), first_line("/proc/sys/kernel/random/boot_id"),
                       fs::read_symlink("/proc/self/ns/pid", ignored).string());
  }();
  return {machine, ::getpid(), start_of(::getpid())};
}

std::vector<Attempt> read_attempts(const fs::path& trial) {
  std::vector<Attempt> attempts;
  std::error_code ignored;
  for (int64_t number = 1; fs::exists(file_of(trial, number), ignored); ++number) {
    const fs::path file = file_of(trial, number);
    try {
      attempts.push_back(attempt_of(parse_json(read_text_file(file)), number));
    } catch (const json::exception& error) {
      user_error("{}: is damaged: {}; remove the folder of the trial to train it anew",
                 file.string(), error.what());
    }
  }
  return attempts;
}

bool claim(const fs::path& trial, const Attempt& attempt) {
  std::error_code error;
  fs::create_directories(trial, error);
  if (error)
    user_error("{}: cannot make this folder: {}; choose another folder for the sweep",
               trial.string(), error.message());
  const fs::path file = file_of(trial, attempt.number);
  // Written beside it first: whoever sees it sees all of it.
  const fs::path own =
      trial / fmt::format(".claim-{}-{}", attempt.worker.pid,
                          checksum(std::as_bytes(std::span(attempt.worker.machine))));
  fs::remove(own, error);
  write_new_file(own, to_text(json_of(attempt), 1) + "\n");
  const bool first = ::link(own.c_str(), file.c_str()) == 0;
  const int reason = errno;
  fs::remove(own, error);
  if (!first && reason != EEXIST)
    user_error(
        "{}: cannot make a hard link: {}; choose a folder for the sweep on a file system "
        "that has them",
        file.string(), std::strerror(reason));
  if (first) sync_folder(trial);
  return first;
}

void record(const fs::path& trial, const Attempt& attempt) {
  replace_file(file_of(trial, attempt.number), to_text(json_of(attempt), 1) + "\n");
}

void beat(const fs::path& trial, const Attempt& attempt) {
  ::utimensat(AT_FDCWD, file_of(trial, attempt.number).c_str(), nullptr, 0);
}

bool Obituary::is_dead(const fs::path& trial, const Attempt& attempt, Clock::time_point now) {
  const Worker& worker = attempt.worker;
  if (worker.machine == this_worker().machine) return start_of(worker.pid) != worker.start;
  std::error_code error;
  const fs::path file = file_of(trial, attempt.number);
  const auto beat = fs::last_write_time(file, error);
  if (error) return false;
  const auto [seen, is_new] = seen_.try_emplace(file, Seen{beat, now});
  if (seen->second.beat != beat) seen->second = {beat, now};
  return now - seen->second.since > kSilence;
}

}  // namespace kt
