#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

/// The built `kuaitrain` as a user starts it, alone or under mpirun.
namespace kt {

using Arguments = std::vector<std::string>;

struct Launch {
  int ranks = 0;                 ///< 0: without mpirun
  std::string program;           ///< another than `kuaitrain`
  int64_t file_limit_bytes = 0;  ///< of any file a rank writes, as if the disk were full; 0: none
};

struct Ended {
  int code = -1;  ///< 128 + signal when one ended it
  std::string out, err;
  /// Lines of out and err that report an error of the program.
  std::vector<std::string> errors() const;
};

/// A started program. Its destructor ends it.
class Program {
 public:
  /// `folder` is where it runs; its output is kept beside, in `folder`.out and `folder`.err.
  Program(const std::filesystem::path& folder, const Arguments& arguments,
          const Launch& launch = {});
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();

  pid_t pid() const { return pid_; }
  /// Waits until `condition` holds; fails the test when the program ends before, or takes over a minute.
  bool wait_until(const std::function<bool()>& condition);
  /// Waits for its end; one that takes over two minutes is killed, and the test fails.
  Ended wait();
  void signal(int number) const;
  /// The processes of the ranks, under mpirun; in the order they were started.
  std::vector<pid_t> ranks() const;

 private:
  bool ended_within(int milliseconds) const;
  void kill_now();

  std::filesystem::path out_, err_;
  pid_t pid_ = -1;
  int handle_ = -1;  // pidfd
};

/// The processes whose parent this is, in the order of their numbers.
std::vector<pid_t> children_of(pid_t parent);

/// Fails the test when the process has not ended ten seconds later.
void expect_gone(pid_t process);

/// Starts the program and waits for its end.
Ended run_program(const std::filesystem::path& folder, const Arguments& arguments,
                  const Launch& launch = {});

std::string file_text(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& text);
/// Changes a byte in the middle of the file.
void flip_byte(const std::filesystem::path& path);
/// Sorted names of what is in a folder, hidden ones included.
std::vector<std::string> names_in(const std::filesystem::path& folder);
nlohmann::json json_file(const std::filesystem::path& path);

/// A folder that the tests of one executable share, emptied at the start and removed at the end.
class Workshop {
 public:
  explicit Workshop(const std::string& name);
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;
  ~Workshop();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Makes a small synthetic replica, 321 users and 480 videos, as `folder`/source (CSV) and `folder`/dataset of
/// `shards` shards; fails the test when that does not work.
void make_replica(const std::filesystem::path& folder, int shards);

/// Writes tab-separated tables with ids of text, as `folder`/ratings.tsv and `folder`/held_out.tsv: columns
/// who, what, stars, when. Eleven users; `whale` has half of the rows, `ghost` none but in the second table,
/// which also has the item `unseen`. Ratings follow a taste of each user.
void write_ratings(const std::filesystem::path& folder);
/// Puts ratings of no taste in place of ratings.tsv, 600 of eleven users: after a good epoch, training does harm.
void write_noise(const std::filesystem::path& folder);
/// Imports them as `folder`/ratings of 16 shards, so some are empty.
void import_ratings(const std::filesystem::path& folder);

}  // namespace kt
