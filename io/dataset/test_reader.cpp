#include "io/dataset/test_reader.h"

#include <string>

#include "io/dataset/checked_file.h"
#include "launch/base/errors.h"

namespace kt {

TestReader::TestReader(const Dataset& dataset) : pairs_(open_checked(dataset, "test.h5")) {
  if (dataset.manifest().at("files").contains("test_events.h5"))
    events_.emplace(open_checked(dataset, "test_events.h5"));
  users_ = pairs_.read<int32_t>("users");
  offsets_ = pairs_.read<int64_t>("offsets");
}

TestPart TestReader::read(int64_t begin, int64_t end) const {
  KT_CHECK(0 <= begin && begin <= end && end <= users(), "users {} to {} of {}", begin, end,
           users());
  const auto at = [](int64_t index) { return static_cast<size_t>(index); };
  TestPart part;
  part.users.assign(users_.begin() + begin, users_.begin() + end);
  const int64_t first = offsets_[at(begin)], last = offsets_[at(end)];
  part.first_pair = first;
  for (int64_t user = begin; user <= end; ++user)
    part.offsets.push_back(offsets_[at(user)] - first);
  const auto read = [&]<class T>(const Hdf5File& file, const std::string& name,
                                 std::vector<T>& column) {
    if (!file.has(name)) return;
    column.resize(at(last - first));
    file.read_rows<T>(name, first, last, column);
  };
  read(pairs_, "item", part.item);
  read(pairs_, "label", part.label);
  read(pairs_, "video_duration", part.video_duration);
  if (events_) {
    read(*events_, "play_duration", part.play_duration);
    read(*events_, "timestamp", part.timestamp);
  }
  return part;
}

}  // namespace kt
