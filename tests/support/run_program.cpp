#include "tests/support/run_program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

namespace kt {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLongestWait{60};
constexpr int kLongestRun_ms = 120'000;
constexpr int kPause_ms = 2;

/// The command line. A limit is set for the ranks alone: mpirun and the shared memory of Open MPI need files of
/// their own.
std::vector<std::string> command_line(const Arguments& arguments, const Launch& launch) {
  std::vector<std::string> line;
  if (launch.ranks > 0) {
    // All on this machine: neither mpirun nor the ranks need look for a way to others.
    line = {
        KT_MPIRUN,  "--oversubscribe", "--bind-to", "none", "--mca", "plm",
        "isolated", "--mca",           "pml",       "ob1",  "-np",   std::to_string(launch.ranks)};
    if (launch.file_limit_bytes > 0) line.insert(line.end(), {"--mca", "btl", "self,tcp"});
  }
  if (launch.file_limit_bytes > 0)
    line.insert(line.end(), {"/bin/bash", "-c",
                             fmt::format("ulimit -f {} && exec \"$0\" \"$@\"",
                                         launch.file_limit_bytes / 1024)});
  line.push_back(launch.program.empty() ? KT_PROGRAM : launch.program);
  line.insert(line.end(), arguments.begin(), arguments.end());
  return line;
}

[[noreturn]] void become(const fs::path& folder, const fs::path& out, const fs::path& err,
                         std::vector<char*>& line) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // a test that is killed leaves no ranks behind
  const int files[] = {::open("/dev/null", O_RDONLY),
                       ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666),
                       ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666)};
  for (int k = 0; k < 3; ++k) ::dup2(files[k], k);
  if (::chdir(folder.c_str()) == 0) ::execv(line[0], line.data());
  ::_exit(127);
}

/// Of /proc; state 0 when there is no such process.
struct ProcessStat {
  char state = 0;
  pid_t parent = 0;
};

ProcessStat process_stat(pid_t process) {
  // pid (name) state parent ...; the name may hold anything.
  const std::string text = file_text(fmt::format("/proc/{}/stat", process));
  ProcessStat stat;
  if (text.empty()) return stat;
  std::istringstream rest(text.substr(text.rfind(')') + 1));
  rest >> stat.state >> stat.parent;
  return stat;
}

}  // namespace

std::vector<std::string> Ended::errors() const {
  std::vector<std::string> found;
  std::istringstream text(out + "\n" + err);
  for (std::string line; std::getline(text, line);)
    if (line.starts_with("error: ") || line.find("] error: ") != line.npos) found.push_back(line);
  return found;
}

Program::Program(const fs::path& folder, const Arguments& arguments, const Launch& launch)
    : out_(folder.string() + ".out"), err_(folder.string() + ".err") {
  fs::create_directories(folder);
  std::vector<std::string> line = command_line(arguments, launch);
  std::vector<char*> pointers;
  for (std::string& word : line) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
  // Or mpirun takes two seconds to end after any code but 0: it waits for what it has killed, even where nothing is left.
  ::setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1);
  pid_ = ::fork();
  if (pid_ == 0) become(folder, out_, err_, pointers);
  handle_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  if (pid_ < 0 || handle_ < 0) throw std::runtime_error("cannot start the program");
}

Program::~Program() {
  if (pid_ > 0) kill_now();
  if (handle_ >= 0) ::close(handle_);
}

bool Program::ended_within(int milliseconds) const {
  pollfd handle{.fd = handle_, .events = POLLIN, .revents = 0};
  return ::poll(&handle, 1, milliseconds) > 0;
}

void Program::kill_now() {
  // mpirun ends its ranks when it is asked to; only a plain kill would leave them.
  ::kill(pid_, SIGTERM);
  if (!ended_within(10'000)) ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

bool Program::wait_until(const std::function<bool()>& condition) {
  for (const auto begin = Clock::now(); Clock::now() - begin < kLongestWait;) {
    if (condition()) return true;
    if (ended_within(kPause_ms)) {
      ADD_FAILURE() << "ended too early\n" << file_text(out_) << file_text(err_);
      return false;
    }
  }
  ADD_FAILURE() << "waited in vain\n" << file_text(out_) << file_text(err_);
  return false;
}

Ended Program::wait() {
  Ended ended;
  if (ended_within(kLongestRun_ms)) {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  } else {
    ADD_FAILURE() << "hangs";
    kill_now();
  }
  ended.out = file_text(out_);
  ended.err = file_text(err_);
  return ended;
}

void Program::signal(int number) const { ::kill(pid_, number); }

std::vector<pid_t> Program::ranks() const { return children_of(pid_); }

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }))
      continue;
    if (const pid_t process = std::stoi(name); process_stat(process).parent == parent)
      children.push_back(process);
  }
  std::sort(children.begin(), children.end());
  return children;
}

void expect_gone(pid_t process) {
  // Nobody may be there to collect an orphan's end, so one that has ended may still be listed.
  const auto gone = [&] {
    const char state = process_stat(process).state;
    return state == 0 || state == 'Z' || state == 'X';
  };
  for (const auto begin = Clock::now(); !gone() && Clock::now() - begin < std::chrono::seconds(10);)
    ::poll(nullptr, 0, kPause_ms);
  EXPECT_TRUE(gone()) << "process " << process << " lives on";
}

Ended run_program(const fs::path& folder, const Arguments& arguments, const Launch& launch) {
  return Program(folder, arguments, launch).wait();
}

std::string file_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_file(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

void flip_byte(const fs::path& path) {
  std::string text = file_text(path);
  ASSERT_FALSE(text.empty()) << path;
  text[text.size() / 2] = static_cast<char>(text[text.size() / 2] ^ 1);
  write_file(path, text);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

nlohmann::json json_file(const fs::path& path) { return nlohmann::json::parse(file_text(path)); }

Workshop::Workshop(const std::string& name)
    : path_(fs::path(::testing::TempDir()) / ("kuaitrain-" + name)) {
  // Of a test in shards, each has a folder of its own.
  if (const char* shard = std::getenv("GTEST_SHARD_INDEX")) path_ += std::string("-") + shard;
  fs::remove_all(path_);
  fs::create_directories(path_);
}

Workshop::~Workshop() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void make_replica(const fs::path& folder, int shards) {
  const Ended synth =
      run_program(folder / "work", {"synth", "--out", folder / "source", "--scale", "0.002"});
  ASSERT_EQ(synth.code, 0) << synth.err;
  const Ended import =
      run_program(folder / "work", {"import", folder / "source", "--out", folder / "dataset",
                                    "--shards", std::to_string(shards)});
  ASSERT_EQ(import.code, 0) << import.err;
}

void write_ratings(const fs::path& folder) {
  std::mt19937 random(7);
  const auto below = [&](int end) {
    return static_cast<int>(random() % static_cast<unsigned>(end));
  };
  const auto stars = [&](int user, int item) { return 1 + (3 * user + 2 * item + below(3)) % 5; };
  std::string train = "who\twhat\tstars\twhen\n", test = train;
  for (int k = 0; k < 3000; ++k) {
    const int user = k % 2 == 0 ? 0 : 1 + below(10), item = below(40);
    train +=
        fmt::format("{}\titem-{}\t{}\t{}\n", user == 0 ? "whale" : fmt::format("user {}", user),
                    item, stars(user, item), 1'600'000'000 + 60 * k);
  }
  for (int user = 1; user <= 10; ++user)
    for (int item = 0; item < 40; item += 2)
      test += fmt::format("user {}\titem-{}\t{}\t1700000000\n", user, item, stars(user, item));
  for (const char* row : {"ghost\titem-1\t3", "ghost\titem-2\t4", "user 1\tunseen\t5"})
    test += fmt::format("{}\t1700000000\n", row);
  write_file(folder / "ratings.tsv", train);
  write_file(folder / "held_out.tsv", test);
}

void write_noise(const fs::path& folder) {
  std::string text = "who\twhat\tstars\twhen\n";
  for (uint32_t k = 0; k < 600; ++k)
    text += fmt::format("user {}\titem-{}\t{}\t{}\n", k % 11, 7 * k % 40,
                        1 + (k * 2654435761u >> 11) % 5, 1'600'000'000 + k);
  write_file(folder / "ratings.tsv", text);
}

void import_ratings(const fs::path& folder) {
  const Ended import = run_program(
      folder / "work", {"import", folder / "ratings.tsv", "--map",
                        "user=who,item=what,label=stars,time=when", "--delimiter", "tab", "--test",
                        folder / "held_out.tsv", "--shards", "16", "--out", folder / "ratings"});
  ASSERT_EQ(import.code, 0) << import.err;
}

}  // namespace kt
