// As many ranks as a data set may have shards.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/evaluation/metrics/pair_order.h"

namespace kt {
namespace {

/// The last rank of many, of which no other has anything.
class LastOfMany : public Communicator {
 public:
  explicit LastOfMany(int size) : world_{.rank = size - 1, .size = size} {}
  World world() const override { return world_; }
  void all_reduce(const void* in, void* out, int64_t count, DataType type, Reduction,
                  Stream) override {
    std::memmove(out, in, static_cast<size_t>(count * size_in_bytes(type)));
  }
  void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType type,
                  Stream) override {
    last_part(in, counts.back(), out, counts, type);
  }
  void all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                  std::span<const int64_t> receive_counts, DataType type, Stream) override {
    int64_t before = 0;
    for (const int64_t count : send_counts) before += count;
    const auto* own =
        static_cast<const std::byte*>(in) + (before - send_counts.back()) * size_in_bytes(type);
    last_part(own, send_counts.back(), out, receive_counts, type);
  }
  void reduce_scatter(const void*, void*, int64_t, DataType, Reduction, Stream) override {}
  void broadcast(void*, int64_t, DataType, int, Stream) override {}
  void barrier() override {}
  void synchronize(Stream) override {}

 private:
  static void last_part(const void* in, int64_t count, void* out, std::span<const int64_t> counts,
                        DataType type) {
    int64_t all = 0;
    for (const int64_t each : counts) all += each;
    auto* bytes = static_cast<std::byte*>(out);
    std::fill_n(bytes, all * size_in_bytes(type), std::byte{0});
    if (count > 0)
      std::memcpy(bytes + (all - count) * size_in_bytes(type), in,
                  static_cast<size_t>(count * size_in_bytes(type)));
  }
  World world_;
};

TEST(ManyRanks, TheLastPieceOfLabelsIsCounted) {
  ThreadPool pool(1);
  for (const int ranks : {1, 64, 4096}) {
    LastOfMany comm(ranks);
    // Equal labels are of one piece: the last one, of the last rank.
    const std::vector<float> scores{1, 4, 2, 2};
    const std::vector<uint32_t> row{0, 1, 2, 3}, key{7, 7, 7, 7};
    const std::array<int64_t, 1> below{0};
    const std::array parts{metrics::OrderedLabels{key, below}};
    metrics::GlobalOrder order(parts, below.size(), comm, pool);
    metrics::OrderBuffers buffers;
    order.take(0, metrics::score_keys(row, scores, buffers));
    const metrics::PairOrder counted = order.count(comm, pool);
    EXPECT_EQ(counted.classes.at(0).positives, 4) << ranks;
    EXPECT_EQ(counted.classes.at(0).negatives, 0) << ranks;
    EXPECT_EQ(counted.pairs, 0) << ranks;
  }
}

}  // namespace
}  // namespace kt
