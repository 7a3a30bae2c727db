#include "trainer/analysis/row_table.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "io/dataset/checked_file.h"
#include "io/dataset/test_reader.h"

namespace kt {
namespace {

constexpr int64_t kTestPieces = 64;

/// Also where some rows alone have one.
std::vector<double> timestamps_of(const Dataset& dataset, int64_t shard) {
  const Hdf5File file = open_checked(dataset, shard_file_name(shard));
  return file.has("timestamp") ? file.read<double>("timestamp") : std::vector<double>();
}

}  // namespace

RowTable training_rows(const Dataset& dataset) {
  return {dataset.shards(), [&dataset](int64_t index) {
            Shard shard = dataset.read_shard(index);
            RowPiece piece{.users = std::move(shard.users),
                           .user = std::move(shard.user),
                           .item = std::move(shard.item),
                           .label = std::move(shard.label),
                           .timestamp = timestamps_of(dataset, index),
                           .row = std::move(shard.row)};
            if (dataset.has_durations()) {
              Durations durations = dataset.read_durations(index);
              piece.play_duration = std::move(durations.play_duration);
              piece.video_duration = std::move(durations.video_duration);
            }
            return piece;
          }};
}

std::optional<RowTable> test_rows(const Dataset& dataset) {
  if (dataset.test_rows() == 0) return std::nullopt;
  const auto reader = std::make_shared<TestReader>(dataset);
  return RowTable{
      kTestPieces, [reader](int64_t index) {
        const int64_t users = reader->users();
        const int64_t begin = index * users / kTestPieces, end = (index + 1) * users / kTestPieces;
        TestPart part = reader->read(begin, end);
        RowPiece piece{.users = std::move(part.users),
                       .item = std::move(part.item),
                       .play_duration = std::move(part.play_duration),
                       .video_duration = std::move(part.video_duration),
                       .timestamp = std::move(part.timestamp)};
        for (const double label : part.label) piece.label.push_back(static_cast<float>(label));
        for (size_t user = 0; user < piece.users.size(); ++user)
          piece.user.insert(piece.user.end(), part.offsets[user + 1] - part.offsets[user],
                            static_cast<int32_t>(user));
        for (int64_t pair = 0; pair < piece.size(); ++pair)
          piece.row.push_back(static_cast<uint32_t>(part.first_pair + pair));
        return piece;
      }};
}

}  // namespace kt
