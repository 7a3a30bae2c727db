#include <algorithm>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "trainer/devices/fused_predictor.h"
#include "trainer/devices/kernels.h"
#include "trainer/devices/score_kernels.h"

namespace kt {
namespace {

constexpr int64_t kTeamsOfProcessor = 4;  // as many as it has threads for
// Of a catalogue, but half of the free memory at most.
constexpr int64_t kPairsAtOnce = int64_t{1} << 24;
constexpr int64_t kBytesOfPair = 16;  // user, item, score, key

int64_t pairs_at_once() {
  size_t free = 0, all = 0;
  check_cuda(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
  return std::min(kPairsAtOnce, static_cast<int64_t>(free) / 2 / kBytesOfPair);
}

/// Over rows or ids, so many blocks each that all processors have work.
int64_t teams_for(int64_t n) {
  return std::min((n + fused::kBlockRows - 1) / fused::kBlockRows,
                  processors() * kTeamsOfProcessor);
}

/// Lists of a group of users on the device, and of the host when they are there. Shapes: [users, length].
struct Lists {
  Lists(int64_t users, int64_t of)
      : length(of), item(users * of), score(users * of), count(users) {}
  void download(int64_t users, DeviceStream& stream) {
    items.resize(users * length);
    scores.resize(users * length);
    counts.resize(users);
    item.download(items, stream);
    score.download(scores, stream);
    count.download(counts, stream);
  }
  std::vector<Recommendation> of_user(int64_t u) const {
    std::vector<Recommendation> list;
    for (int64_t k = u * length; k < u * length + counts[u]; ++k)
      list.push_back({items[k], scores[k]});
    return list;
  }

  int64_t length;
  DeviceArray<int32_t> item;
  DeviceArray<float> score;
  DeviceArray<int32_t> count;  // [users]
  std::vector<int32_t> items, counts;
  std::vector<float> scores;
};

}  // namespace

DeviceArray<float> FusedPredictor::row_columns(std::span<const int32_t> rows,
                                               std::span<const int32_t> items) const {
  const std::vector<float> columns = problem_.columns.of_pairs(rows, items);
  DeviceArray<float> result(columns, stream_);
  wait();
  return result;
}

void FusedPredictor::score(int64_t n, const int32_t* user, const int32_t* item,
                           const float* row_columns, float* to) const {
  const int64_t teams = teams_for(n);
  for_teams(teams, kTeamThreads, model_.rows().shared_bytes(), stream_,
            kernel::ScoreRows{model_.arguments(model_.rows(), teams),
                              {.n = n,
                               .user_parts = weights_.user_parts.data(),
                               .item_parts = weights_.item_parts.data(),
                               .user = user,
                               .item = item,
                               .item_id = item,
                               .columns = {weights_.columns[0], weights_.columns[1], row_columns},
                               .norms = model_.running_norms(),
                               .predictions = to},
                              problem_.system.objective,
                              teams});
}

void FusedPredictor::predict(const Pairs& pairs, ThreadPool&, std::span<float> out) const {
  const int64_t n = pairs.size();
  KT_CHECK(std::ssize(out) == n);
  if (n == 0) return;
  const DeviceArray<int64_t> offsets(pairs.offsets, stream_);
  const DeviceArray<int32_t> row(pairs.user, stream_), item(pairs.item, stream_);
  DeviceArray<int32_t> user(n);
  DeviceArray<float> scores(n);
  for_each(n, stream_, kernel::SpreadUsers{offsets.data(), row.data(), row.size(), user.data()});
  std::vector<int32_t> row_of_pair;
  for (size_t list = 0; has_row_columns() && list < pairs.user.size(); ++list)
    row_of_pair.resize(pairs.offsets[list + 1], pairs.user[list]);
  const DeviceArray<float> columns = row_columns(row_of_pair, pairs.item);
  score(n, user.data(), item.data(), columns.data(), scores.data());
  scores.download(out, stream_);
  wait();
}

std::vector<std::vector<Recommendation>> FusedPredictor::best(const ListsWanted& wanted,
                                                              ThreadPool& pool) const {
  // Columns of rows are the host's to find.
  if (has_row_columns()) return Predictor::best(wanted, pool);
  const auto users = std::ssize(wanted.users), items = std::ssize(wanted.left_out);
  const int64_t most = std::min(users, std::max<int64_t>(1, pairs_at_once() / items));
  const DeviceArray<int32_t> row(wanted.users, stream_), seen(wanted.seen.item, stream_);
  const DeviceArray<int64_t> seen_offsets(wanted.seen.offsets, stream_);
  const DeviceArray<uint8_t> left_out(wanted.left_out, stream_);
  DeviceArray<int32_t> user(most * items), item(most * items);
  DeviceArray<float> scores(most * items);
  DeviceArray<uint32_t> keys(most * items);
  Lists lists(most, std::min(wanted.length, items));
  DeviceArray<int32_t> chosen(most * lists.length);
  std::vector<std::vector<Recommendation>> result;
  for (int64_t begin = 0; begin < users; begin += most) {
    const int64_t count = std::min(most, users - begin), n = count * items;
    for_each(n, stream_,
             kernel::CataloguePairs{row.data() + begin, items, user.data(), item.data()});
    score(n, user.data(), item.data(), nullptr, scores.data());
    for_teams(count, kTeamThreads, kernel::BestItems::kShared, stream_,
              kernel::BestItems{
                  .items = items,
                  .length = lists.length,
                  .score = scores.data(),
                  .left_out = left_out.data(),
                  .seen_offsets = wanted.seen.of_nobody() ? nullptr : seen_offsets.data() + begin,
                  .seen = seen.data(),
                  .key = keys.data(),
                  .chosen = chosen.data(),
                  .best = lists.item.data(),
                  .best_score = lists.score.data(),
                  .count = lists.count.data()});
    lists.download(count, stream_);
    wait();
    for (int64_t k = 0; k < count; ++k) result.push_back(lists.of_user(k));
  }
  return result;
}

DeviceArray<float> parts_of_all(FusedModel& model, Side side, fused::IdArguments ids,
                                DeviceStream& stream) {
  const DeviceProgram& program = model.ids(side);
  DeviceArray<float> parts(ids.n * program.program().part_width);
  DeviceArray<int32_t> rows(ids.n);
  for_each(ids.n, stream, kernel::Count{rows.data()});
  ids.row = rows.data();
  ids.parts = parts.data();
  const int64_t teams = teams_for(ids.n);
  for_teams(teams, kTeamThreads, program.shared_bytes(), stream,
            kernel::AllParts{model.arguments(program, teams), ids, teams});
  check_cuda(cudaStreamSynchronize(stream), "parts");
  return parts;
}

}  // namespace kt
