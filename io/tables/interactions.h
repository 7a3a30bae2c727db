#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "io/files/checksum.h"
#include "io/tables/csv.h"
#include "io/tables/id_dictionary.h"
#include "launch/base/parallel_for.h"

/// Interaction tables, as the import reads them: checked, compact, in source order.
namespace kt {

/// Why a row is malformed. The names are those of the manifest.
enum class Fault : int8_t {
  kNone,
  kFieldCount,
  kQuote,
  kOpenQuote,
  kNulByte,
  kTruncated,
  kEmptyId,
  kEncoding,
  kNotANumber,
  kNegative,
  kUnknownId,
  kLabel,
  kRatioMismatch,
  kDuration,
  kTime,
  kRepeated,
  kInBothTables,
  kCount
};
std::string_view fault_name(Fault fault);

/// Rows by reason why they were dropped.
using FaultCounts = std::array<int64_t, static_cast<size_t>(Fault::kCount)>;

enum class OnFault { kStop, kSkip };

/// What a malformed row does: ends the import with the lowest line's message, or is counted. A quote that is never
/// closed ends it in any case: all that follows would be lost in it. May be called from several threads.
class FaultLog {
 public:
  FaultLog(std::filesystem::path path, OnFault on_fault)
      : path_(std::move(path)), on_fault_(on_fault) {}
  bool stops() const { return on_fault_ == OnFault::kStop; }
  /// `message` says got and expected; it matters only if the fault stops the import.
  void add(Fault fault, int64_t line, std::string message);
  bool failed() const;
  /// Throws: UserError with the message of the lowest line, if a fault is to stop the import.
  void check() const;
  const FaultCounts& counts() const { return counts_; }

 private:
  std::filesystem::path path_;
  OnFault on_fault_;
  mutable std::mutex mutex_;
  int64_t line_ = -1;
  Fault fault_ = Fault::kNone;
  std::string message_;
  FaultCounts counts_{};
};

/// What ids a column may hold.
struct IdRule {
  bool integers = false;  ///< non-negative integers, as in the official layout
  const std::vector<int64_t>* known = nullptr;  ///< ascending; null: all
  std::string known_file;                       ///< where `known` comes from
  /// Checks one id; with `message`, also says what is wrong.
  IdDictionary::Made check(std::string_view column, std::string_view field,
                           std::string* message) const;
};

/// The columns of a table by name; empty: it has none.
struct InteractionColumns {
  std::string user, item, label;
  std::string play_duration, video_duration, time, date, timestamp;
  /// The official layout: no other columns, and the label is play_duration / video_duration.
  bool official = false;
  /// A table without the timestamp column is fine: its rows have none.
  bool timestamp_optional = false;
};

/// One row; 32 bytes for training, where the label is a float.
template <class Label>
struct [[gnu::packed]] Row {
  int32_t user;  ///< number in the dictionary of the thread that read it, then the dense index
  int32_t item;
  Label label;
  int32_t play_duration;   ///< milliseconds
  int32_t video_duration;  ///< milliseconds
  int32_t date;            ///< yyyymmdd; 0 when missing
  double timestamp;        ///< seconds since the epoch; NaN when missing
};

/// The well-formed rows of a block of lines. A row's number is its line in the source, from 0 where the rows begin.
template <class Label>
struct RowBlock {
  std::vector<Row<Label>> rows;
  int thread = 0;                 ///< who read it
  int64_t begin = 0;              ///< how many rows are before it
  int64_t records = 0;            ///< malformed ones counted
  uint32_t first_number = 0;      ///< of its first line
  std::vector<uint32_t> numbers;  ///< of the rows; empty if they follow on: every line is a row
  uint32_t number(size_t index) const {
    return numbers.empty() ? first_number + static_cast<uint32_t>(index) : numbers[index];
  }
};

template <class Label>
struct Interactions {
  std::filesystem::path path;
  int64_t first_line = 0;                  ///< where the rows begin
  std::vector<RowBlock<Label>> blocks;     ///< in source order
  std::vector<IdDictionary> users, items;  ///< [threads]
  int64_t rows_read = 0;
  int64_t rows = 0;  ///< well-formed
  FaultCounts faults{};
  FileSum source;
  bool has_durations = false;

  /// Turns the numbers of the dictionaries into dense indices and lets the dictionaries go.
  void index(const IdIndex& user_index, const IdIndex& item_index, ThreadPool& pool);
};

/// Throws: UserError with file and line for a malformed row (unless these are skipped), no rows, or missing
/// columns.
template <class Label>
Interactions<Label> read_interactions(const std::filesystem::path& path, const Dialect& dialect,
                                      const InteractionColumns& columns, const IdRule& users,
                                      const IdRule& items, OnFault on_fault, ThreadPool& pool);

}  // namespace kt
