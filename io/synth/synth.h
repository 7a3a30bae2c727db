#pragma once

#include <cstdint>
#include <filesystem>

/// A synthetic replica of KuaiRec 2.0 in the official CSV layout, with planted structure. What is planted,
/// and how its quantiles compare with the real ones: docs/synthetic-data.md.
namespace kt {

/// The file beside the CSV files that tells a replica from the real thing: one line, see `synthetic_marker`.
inline constexpr const char* kSyntheticMarkerFile = "SYNTHETIC.txt";

struct SynthOptions {
  std::filesystem::path out;  ///< a folder that does not exist yet, or is empty
  double scale = 1;  ///< in (0, 10]; rows grow with it, users and videos with its square root
  uint64_t seed = 1;
  int64_t threads = 0;  ///< 0: as many as the machine has; the files do not depend on it
};

/// How large a replica of a scale is. At scale 1 the true counts of KuaiRec 2.0; users, videos and the sides
/// of the block are 20 at least.
struct SynthSizes {
  int64_t users, videos;              ///< ids 0..users-1 and 0..videos-1
  int64_t small_users, small_videos;  ///< sides of the fully observed block
  int64_t small_missing;              ///< cells of the block that are not in the small matrix
  int64_t small_without_time;         ///< rows of the small matrix with empty time columns
  int64_t big_rows;                   ///< rows of the big matrix, duplicates included
  int64_t big_duplicates;             ///< rows equal to an earlier one in every field
  int64_t big_event_duplicates;       ///< rows equal to an earlier one in all but `date`
  int64_t daily_rows, daily_keys;     ///< rows and distinct (video, date) of the daily features
  int64_t social_rows;
  int64_t small_rows() const { return small_users * small_videos - small_missing; }
};

/// The sizes `synthesize` makes for a scale. Throws: UserError for a scale outside (0, 10].
SynthSizes synth_sizes(double scale);

struct SynthReport {
  SynthSizes sizes;
  int64_t bytes;   ///< of all files
  double seconds;  ///< until the folder had its name
};

/// Writes the seven CSV files and the marker. Bytes depend on scale and seed alone: not on threads, nor on the
/// machine (no libm function is used). The folder is made under a temporary name beside `out` and renamed when it
/// is complete and on disk.
/// Throws: UserError for a scale outside (0, 10], for an `out` that exists and is not an empty folder, and when
/// writing fails (a full disk); then nothing is left behind.
SynthReport synthesize(const SynthOptions& options);

}  // namespace kt
