#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/files/checksum.h"

/// Checkpoints: `checkpoints/step-NNNNNNNNNNNN/` of a run, each a manifest and one HDF5 file a rank, whole
/// or not there at all. Any number of ranks reads what any number wrote. Who does what is the caller's: one
/// rank begins, every rank writes its part, the first rank commits, each step after the other.
namespace kt {

class Hdf5File;

/// The rows [row_begin, row_end) of an array of a run.
/// Shapes: data [row_end - row_begin, cols], row-major.
struct ArrayPart {
  std::string name;  ///< no '/'
  int64_t rows = 0;  ///< of the whole array
  int64_t cols = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  std::span<const float> data;
};

/// Which rows of an array a part file holds.
struct PartRange {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  bool operator==(const PartRange&) const = default;
};

/// A part as it was written, for the manifest. JSON, so that ranks can send it.
struct PartFile {
  std::string name;
  FileSum sum;
  std::vector<PartRange> ranges;
  bool operator==(const PartFile&) const = default;
};
void to_json(nlohmann::json& out, const PartFile& part);
void from_json(const nlohmann::json& in, PartFile& part);

/// Puts right what an end between two of its writes leaves of a run that is at the checkpoint of `step`: temporaries
/// go, and `latest` is that one. Throws: UserError.
void settle_checkpoints(const std::filesystem::path& run_dir, int64_t step);

/// Makes a fresh temporary folder for the checkpoint of `step`, and removes those that crashes left.
/// Throws: UserError when it cannot be made.
std::filesystem::path begin_checkpoint(const std::filesystem::path& run_dir, int64_t step);

/// Writes and syncs the part of one rank; several ranges of one array are fine.
/// Throws: UserError when it cannot be written, for a full disk too; then call `abandon_checkpoint`.
PartFile write_checkpoint_part(const std::filesystem::path& temporary, int rank,
                               std::span<const ArrayPart> arrays);

/// Writes the manifest and makes the checkpoint appear as a whole, then points `latest` at it and deletes
/// the checkpoints before it past the newest `keep`, never those of `kept_steps`, nor those of another schema. One of
/// the same step is replaced. `latest` is left as it is, with a warning, where it cannot be made a link.
/// Shapes: the ranges of `parts` tile every array (KT_CHECK).
/// Throws: UserError when it cannot be written; earlier checkpoints and `latest` are then as before, and
/// the temporary folder is gone.
/// Returns: the folder of the checkpoint.
std::filesystem::path commit_checkpoint(const std::filesystem::path& run_dir, int64_t step,
                                        const std::filesystem::path& temporary,
                                        const nlohmann::json& state,
                                        const std::vector<PartFile>& parts, int64_t keep,
                                        std::span<const int64_t> kept_steps);

/// Removes the checkpoints after `step`: the run went back to that one. Throws: UserError.
void drop_checkpoints_after(const std::filesystem::path& run_dir, int64_t step);

/// Removes a temporary folder that will not be committed.
void abandon_checkpoint(const std::filesystem::path& temporary) noexcept;

std::filesystem::path checkpoint_path(const std::filesystem::path& run_dir, int64_t step);
/// Steps of the checkpoints of a run, newest first; whole or damaged.
std::vector<int64_t> list_checkpoints(const std::filesystem::path& run_dir);
/// The first of them; -1 without any.
int64_t newest_checkpoint_step(const std::filesystem::path& run_dir);

/// What is checked on opening: all bytes, or the manifest and the sizes (where one rank has checked all).
enum class Verify { kEverything, kManifest };

class Checkpoint {
 public:
  /// Throws: UserError naming file, expected and got, when anything is absent or damaged.
  static Checkpoint open(const std::filesystem::path& folder, Verify verify = Verify::kEverything);
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  struct Shape {
    int64_t rows = 0;
    int64_t cols = 0;
    bool operator==(const Shape&) const = default;
  };

  const std::filesystem::path& path() const { return path_; }
  int64_t step() const { return step_; }
  const nlohmann::json& state() const { return state_; }
  const std::vector<PartFile>& parts() const { return parts_; }
  /// Every array and its shape, in name order.
  const std::vector<std::pair<std::string, Shape>>& arrays() const { return arrays_; }
  /// Rows [row_begin, row_end) of an array. Shapes: out [row_end - row_begin, cols].
  /// Throws: UserError when the checkpoint has no such array or rows, or a part cannot be read.
  void read_rows(const std::string& name, int64_t row_begin, int64_t row_end, std::span<float> out);

 private:
  Checkpoint();
  std::filesystem::path path_;
  int64_t step_ = 0;
  nlohmann::json state_;
  std::vector<PartFile> parts_;
  std::vector<std::pair<std::string, Shape>> arrays_;
  std::vector<std::unique_ptr<Hdf5File>> files_;  ///< one a part, opened when first read
};

/// The newest checkpoint of a run without damage; `on_bad(step, message)` is told of each damaged one that is
/// passed over. Throws: UserError at one of another schema: not damaged, but not for this program.
std::optional<Checkpoint> newest_good_checkpoint(
    const std::filesystem::path& run_dir,
    const std::function<void(int64_t, const std::string&)>& on_bad);

/// What a checkpoint holds, every checksum verified: `kind, path, schema_version, step, bytes, arrays, parts,
/// state`. Throws: UserError when anything is absent or damaged.
nlohmann::json describe_checkpoint(const std::filesystem::path& folder);

}  // namespace kt
