#include "trainer/features/columns.h"

#include <algorithm>
#include <utility>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "trainer/features/label_columns.h"
#include "trainer/features/row_scale.h"
#include "trainer/features/side_columns.h"

namespace kt {
namespace {

constexpr const char* kUser = "columns.user";
constexpr const char* kItem = "columns.item";
constexpr const char* kRow = "columns.row";
std::string means_name(const Column& column) { return "columns." + column.name + ".means"; }
std::string groups_name(const Column& column) { return "columns." + column.name + ".groups"; }

std::vector<Column> row_columns(std::span<const Column> columns) {
  std::vector<Column> rows;
  std::ranges::copy_if(columns, std::back_inserter(rows),
                       [](const Column& column) { return side_of(column) == Side::kRow; });
  return rows;
}

/// The groups of each row column, read from side tables. Throws: UserError.
std::vector<ItemGroups> read_groups(std::span<const Column> columns, const Dataset& dataset) {
  expect_tables(columns, dataset);
  std::vector<ItemGroups> groups;
  for (const Column& column : row_columns(columns))
    groups.push_back(item_groups(column.label_mean.key, dataset));
  return groups;
}

/// As `column_arrays`, the groups having been read.
std::vector<ArraySpec> arrays_of(std::span<const Column> columns,
                                 std::span<const ItemGroups> groups, const Dataset& dataset) {
  const int64_t users = dataset.users(), items = dataset.items();
  std::vector<ArraySpec> specs{
      {kUser, ArrayKind::kUserTable, users, width_of(columns, Side::kUser), false},
      {kItem, ArrayKind::kItemTable, items, width_of(columns, Side::kItem), false}};
  const std::vector<Column> rows = row_columns(columns);
  for (size_t c = 0; c < rows.size(); ++c) {
    if (!is_by_user(rows[c].label_mean.key)) {
      specs.push_back({means_name(rows[c]), ArrayKind::kItemTable, items, 1, false});
      continue;
    }
    specs.push_back({means_name(rows[c]), ArrayKind::kUserTable, users, groups[c].groups, false});
    if (rows[c].label_mean.key != LabelKey::kUser)
      specs.push_back({groups_name(rows[c]), ArrayKind::kItemTable, items, groups[c].width, false});
  }
  specs.push_back({kRow, ArrayKind::kDense, 3, std::ssize(rows), false});
  std::erase_if(specs, [](const ArraySpec& spec) { return spec.cols == 0; });
  return specs;
}

/// The array of that name, or null.
FittedArray* find(std::vector<FittedArray>& arrays, const std::string& name) {
  const auto found =
      std::ranges::find_if(arrays, [&](const auto& array) { return array.spec.name == name; });
  return found == arrays.end() ? nullptr : &*found;
}

/// A row column's number as the system reads it.
float scaled(float value, float centre, float unit) { return (value - centre) / unit; }

struct TrainingCounts {
  std::vector<int64_t> user, item;
};
/// Training rows of each user and item. Collective: all ranks.
TrainingCounts count_rows(const ColumnInputs& inputs, Communicator& comm) {
  TrainingCounts counts{std::vector<int64_t>(inputs.dataset.users(), 0),
                        std::vector<int64_t>(inputs.dataset.items(), 0)};
  for (const ShardSamples& shard : inputs.samples)
    for (const Sample& sample : shard.train) {
      ++counts.user[shard.users[sample.user]];
      ++counts.item[sample.item];
    }
  comm.all_reduce(std::span(counts.user), Reduction::kSum);
  comm.all_reduce(std::span(counts.item), Reduction::kSum);
  return counts;
}

/// What is read before anything is fitted.
struct Tables {
  SideColumns side;
  std::vector<ItemGroups> groups;
  std::vector<uint64_t> durations;  ///< empty where no column takes them
};

/// Collective: all ranks. Throws: AgreedError.
Tables read_tables(std::span<const Column> columns, const ColumnInputs& inputs,
                   MpiCommunicator& comm) {
  const bool durations =
      !inputs.dataset.has_daily() &&
      std::ranges::count(columns, ColumnSource::kVideoDuration, &Column::source) > 0;
  Tables tables;
  agree(comm, [&] {
    tables.side = read_side_columns(columns, inputs.dataset, inputs.until);
    tables.groups = read_groups(columns, inputs.dataset);
    if (durations)
      tables.durations =
          first_durations(inputs.dataset, inputs.samples,
                          shards_of_rank(inputs.dataset.shards(), comm.world()).begin);
  });
  if (!durations) return tables;
  comm.all_reduce(std::span(tables.durations), Reduction::kMin);
  int64_t next = 0;
  for (const Column& column : columns) {
    if (side_of(column) != Side::kItem) continue;
    if (column.source == ColumnSource::kVideoDuration)
      for (size_t i = 0; i < tables.durations.size(); ++i)
        if (tables.durations[i] != kNoDuration)
          tables.side.item[next][i] = static_cast<double>(tables.durations[i] & 0xffffffffu);
    next += width_of(column);
  }
  return tables;
}

/// Fits label means, into their arrays and the training rows, not yet scaled. Collective: all ranks.
void fit_label_means(std::span<const Column> rows, std::span<const ItemGroups> groups,
                     const TrainingLabels& labels, FittedColumns& fitted) {
  const int64_t width = std::ssize(rows);
  for (int64_t c = 0; c < width; ++c) {
    FittedMean mean = labels.fit(rows[c].label_mean, groups[c], c, width, fitted.train_rows);
    find(fitted.arrays, kRow)->values[2 * width + c] = mean.unseen;
    if (FittedArray* array = find(fitted.arrays, means_name(rows[c])))
      array->values = std::move(mean.values);
    if (FittedArray* array = find(fitted.arrays, groups_name(rows[c])))
      array->values.assign(groups[c].group.begin(), groups[c].group.end());
  }
}

/// Scales the row columns by what all training rows have. Collective: all ranks.
void scale_rows(std::span<const Column> columns, int64_t shards, FittedColumns& fitted,
                Communicator& comm, ThreadPool& pool) {
  FittedArray& row = *find(fitted.arrays, kRow);
  const int64_t width = row.spec.cols;
  for (int64_t c = 0; c < width; ++c) {
    const RowColumn values{.rows = fitted.train_rows, .column = c, .width = width};
    const Scale scale = fit_row_scale(columns[c].scaling, values, shards, comm, pool);
    row.values[c] = static_cast<float>(scale.centre);
    row.values[width + c] = static_cast<float>(scale.unit);
  }
  pool.parallel_for(std::ssize(fitted.train_rows), [&](int64_t j, int) {
    std::vector<float>& rows = fitted.train_rows[j];
    for (int64_t k = 0; k < std::ssize(rows); ++k)
      rows[k] = scaled(rows[k], row.values[k % width], row.values[width + k % width]);
  });
}

}  // namespace

std::vector<ArraySpec> column_arrays(std::span<const Column> columns, const Dataset& dataset) {
  return arrays_of(columns, read_groups(columns, dataset), dataset);
}

FittedColumns fit_columns(std::span<const Column> columns, const ColumnInputs& inputs,
                          MpiCommunicator& comm, ThreadPool& pool) {
  Tables tables = read_tables(columns, inputs, comm);
  const TrainingCounts counts = count_rows(inputs, comm);
  int64_t own_users = 0;
  for (const ShardSamples& shard : inputs.samples) own_users += std::ssize(shard.users);

  FittedColumns fitted;
  for (ArraySpec& spec : arrays_of(columns, tables.groups, inputs.dataset)) {
    const int64_t rows = spec.kind == ArrayKind::kUserTable ? own_users : spec.rows;
    fitted.arrays.push_back({spec, std::vector<float>(rows * spec.cols)});
  }
  if (FittedArray* array = find(fitted.arrays, kUser)) {
    const std::vector<float> all =
        finish_columns(columns, Side::kUser, std::move(tables.side.user), counts.user);
    int64_t r = 0;
    for (const ShardSamples& shard : inputs.samples)
      for (const int32_t user : shard.users)
        std::copy_n(all.begin() + user * array->spec.cols, array->spec.cols,
                    array->values.begin() + r++ * array->spec.cols);
  }
  if (FittedArray* array = find(fitted.arrays, kItem))
    array->values = finish_columns(columns, Side::kItem, std::move(tables.side.item), counts.item);

  const std::vector<Column> rows = row_columns(columns);
  for (const ShardSamples& shard : inputs.samples)
    fitted.train_rows.emplace_back(shard.train.size() * rows.size());
  if (rows.empty()) return fitted;
  const TrainingLabels labels(inputs.samples, inputs.label_clip, inputs.seed, comm, pool);
  fit_label_means(rows, tables.groups, labels, fitted);
  scale_rows(rows, inputs.dataset.shards(), fitted, comm, pool);
  return fitted;
}

RowColumns::RowColumns(std::span<const Column> columns, std::vector<FittedArray> arrays) {
  const auto take = [&](const std::string& name) {
    FittedArray* array = find(arrays, name);
    if (array == nullptr) return FittedArray();
    return std::move(*array);
  };
  for (const Column& column : row_columns(columns))
    means_.push_back(
        {is_by_user(column.label_mean.key), take(means_name(column)), take(groups_name(column))});
  row_ = take(kRow);
  KT_CHECK(row_.spec.cols == width(), "{} row columns, arrays of {}", width(), row_.spec.cols);
}

void RowColumns::of(int64_t user_row, int64_t item, std::span<float> out) const {
  const int64_t width = this->width();
  for (int64_t c = 0; c < width; ++c) {
    const Mean& mean = means_[c];
    const float* const own =
        mean.values.values.data() + (mean.by_user ? user_row : item) * mean.values.spec.cols;
    float value = 0;
    if (mean.groups.spec.cols == 0) {
      value = *own;
    } else {
      const std::span groups = std::span(mean.groups.values)
                                   .subspan(item * mean.groups.spec.cols, mean.groups.spec.cols);
      value =
          average(groups, row_.values[2 * width + c], [&](int64_t group) { return own[group]; });
    }
    out[c] = scaled(value, row_.values[c], row_.values[width + c]);
  }
}

}  // namespace kt
