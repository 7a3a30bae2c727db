#include <algorithm>

#include "launch/base/errors.h"
#include "trainer/devices/step_window.h"

namespace kt {

StepWindow::StepWindow(const StepRows& rows, const Parameters& parameters, ItemRequests* requests,
                       std::span<const int64_t> item_begin, int64_t steps_at_once,
                       DeviceStream& stream)
    : rows_(rows),
      steps_at_once_(steps_at_once),
      requests_(requests),
      stream_(stream),
      units_(rows.units()),
      held_users_(std::max<int64_t>(std::ssize(parameters.user_touched), 1)),
      items_end_(parameters.item_begin().back()),
      first_item_(parameters.held_items().begin),
      begin_(rows.begin(), stream),
      item_begin_(item_begin, stream),
      unit_begin_(steps_at_once * units_ + 1) {
  const int64_t most = rows.most_of(steps_at_once);
  reserve(users_, most, steps_at_once * held_users_);
  reserve(requests ? asking_ : items_, most, steps_at_once * items_end_);
  if (requests) request_ = DeviceArray<int32_t>(most);
}

void StepWindow::reserve(Lists& lists, int64_t n, int64_t key_end) {
  if (lists.sort.most() > 0 && lists.sort.most() >= n) return;
  KT_CHECK(n < INT32_MAX, "{} rows prepared at once", n);
  const int64_t room = std::max<int64_t>(n, 1);
  lists.sort = PairSort<int64_t>(room, key_end);
  lists.sum = PrefixSum(room + 1);
  lists.key = DeviceArray<int64_t>(room);
  for (DeviceArray<int32_t>* array : {&lists.row, &lists.run, &lists.id, &lists.begin, &lists.end})
    *array = DeviceArray<int32_t>(room);
  for (DeviceArray<int32_t>* array : {&lists.first, &lists.place})
    *array = DeviceArray<int32_t>(room + 1);
  lists.unit_begin = DeviceArray<int64_t>(steps_at_once_ * units_ + 1);
}

/// After marks, over n of them.
void StepWindow::list(Lists& lists, int64_t n, int64_t ids, int64_t first_id) {
  lists.sum.sum(lists.first.data(), lists.place.data(), n + 1, stream_);
  for_each(
      n, stream_,
      kernel::ListIds{lists.first.data(), lists.place.data(), lists.run.data(), lists.sort.keys(),
                      n, ids, first_id, lists.id.data(), lists.begin.data(), lists.end.data()});
}

void StepWindow::prepare(Range steps, const DeviceSamples::Rows& rows, int64_t cols) {
  const int64_t n = rows_.of(steps).size(), count = steps.size(), units = count * units_ + 1;
  KT_CHECK(count <= steps_at_once_);
  Lists& own_items = requests_ ? asking_ : items_;
  for_each(units, stream_,
           kernel::PlaceUnits{begin_.data() + steps.begin * units_, unit_begin_.data()});
  for_each(
      n, stream_,
      kernel::MakeKeys{unit_begin_.data(), count, units_, rows.user, rows.item, held_users_,
                       items_end_, users_.key.data(), own_items.key.data(), users_.row.data()});
  users_.sort.sort(users_.key.data(), users_.row.data(), n, stream_);
  own_items.sort.sort(own_items.key.data(), users_.row.data(), n, stream_);

  for_each(n + 1, stream_,
           kernel::MarkUsers{n, users_.sort.keys(), users_.sort.values(), unit_begin_.data(),
                             units_, held_users_, users_.first.data(), users_.run.data()});
  list(users_, n, held_users_, 0);
  for_each(
      units, stream_,
      kernel::PlaceUserLists{unit_begin_.data(), users_.place.data(), users_.unit_begin.data()});

  int64_t m = n;
  if (requests_) {
    requests_->prepare(count, asking_.sort.keys(), n, cols);
    for_each(n, stream_, requests_->places(asking_.sort.values(), request_.data()));
    m = requests_->rows() * count;
    reserve(items_, m, steps_at_once_ * items_end_ + 1);
    for_each(m, stream_,
             kernel::AskedKeys{requests_->asked(), items_end_, count, requests_->capacity(),
                               items_.key.data(), items_.row.data()});
    items_.sort.sort(items_.key.data(), items_.row.data(), m, stream_);
  }
  for_each(m + 1, stream_,
           kernel::MarkRuns{m, items_.sort.keys(), count * items_end_, items_.first.data(),
                            items_.run.data()});
  list(items_, m, items_end_, first_item_);
  for_each(
      units, stream_,
      kernel::PlaceItemLists{items_.sort.keys(), m, count, units_, items_end_, item_begin_.data(),
                             items_.place.data(), items_.unit_begin.data()});
}

}  // namespace kt
