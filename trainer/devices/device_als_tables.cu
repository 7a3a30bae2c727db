#include <algorithm>
#include <exception>
#include <utility>

#include "launch/process/device.h"
#include "trainer/devices/als_kernels.h"
#include "trainer/devices/device_als_tables.h"

namespace kt {
namespace {

// Teams that take the rows of a table where a team cannot share its equations.
constexpr int64_t kTeamsOfLargeRows = 256;
constexpr Side kBoth[] = {Side::kUser, Side::kItem};

}  // namespace

class DeviceAlsTables::State {
 public:
  State(const AlsFit& fit, Parameters& parameters, const Rows& rows, Communicator& comm)
      : parameters_(parameters),
        rows_(rows),
        comm_(comm),
        width_(parameters.find(rows[0].array).spec.cols),
        block_(fit.block),
        reads_tested_(fit.exclude_block),
        of_all_(width_ * width_),
        of_tested_(width_ * width_) {
    for (const Side side : kBoth) place(side);
    const auto bytes = [](int64_t doubles) {
      return doubles * static_cast<int64_t>(sizeof(double));
    };
    shared_bytes_ = bytes(als::team_doubles(block_));
    const int64_t with_equations = shared_bytes_ + bytes(als::equation_doubles(block_));
    if (with_equations <= most_shared_bytes())
      shared_bytes_ = with_equations;
    else
      equations_ = DeviceArray<double>(kTeamsOfLargeRows * als::equation_doubles(block_));
    wait();
  }

  void publish(Side side) {
    Table& table = tables_[index(side)];
    comm_.all_gather(table.own.data(), table.whole.data(), table.counts, DataType::kFloat32,
                     stream_.handle());
    ParameterArray& array = array_of(side);
    table.whole.download(array.value, stream_, array.held.begin * width_);
    wait();
  }

  Summary summary(Side side) {
    Summary found;
    found.gram = gram_of(side, nullptr);
    const Table& table = tables_[index(side)];
    if (reads_tested_) found.gram_of_tested = gram_of(side, table.tested.data());
    for_each(table.n(), stream_, kernel::SquareRows{table.own.data(), width_, of_rows_.data()});
    found.squares.resize(table.n());
    of_rows_.download(found.squares, stream_);
    wait();
    return found;
  }

  std::optional<std::vector<double>> solve(Side side, std::span<const double> gram,
                                           std::span<const double> gram_of_tested) {
    Table& table = tables_[index(side)];
    of_all_.upload(gram, stream_);
    of_tested_.upload(gram_of_tested, stream_);
    const int64_t teams =
        equations_.size() > 0 ? std::min(table.n(), kTeamsOfLargeRows) : table.n();
    for_teams(teams, kTeamThreads, shared_bytes_, stream_,
              kernel::SolveRows{.n = table.n(),
                                .begin = table.begin.data(),
                                .pairs = table.pairs.data(),
                                .ridge = table.ridge.data(),
                                .tested = table.tested.data() + rows_[index(side)].pairs.rows.begin,
                                .table = tables_[1 - index(side)].whole.data(),
                                .width = static_cast<int>(width_),
                                .block = static_cast<int>(block_),
                                .gram = of_all_.data(),
                                .gram_of_tested = of_tested_.data(),
                                .y = y_.data(),
                                .rows = table.own.data(),
                                .losses = of_rows_.data(),
                                .solved = solved_.data(),
                                .teams = teams,
                                .equations = equations_.data()});
    std::vector<double> losses(table.n());
    std::vector<uint8_t> solved(table.n());
    of_rows_.download(losses, stream_);
    solved_.download(solved, stream_);
    wait();
    if (std::ranges::count(solved, uint8_t{0}) > 0) return std::nullopt;
    return losses;
  }

 private:
  /// Shapes: R rows, n own ones, p pairs of these.
  struct Table {
    std::vector<int64_t> counts;       // [ranks] elements of the rows each owns
    DeviceArray<float> whole, own;     // [R, width], [n, width]
    DeviceArray<int64_t> block_begin;  // [blocks + 1] rows
    DeviceArray<uint8_t> tested;       // [R]
    DeviceArray<int64_t> begin;        // [n + 1]
    DeviceArray<PairTerm> pairs;       // [p]
    DeviceArray<double> ridge;         // [n]
    int64_t n() const { return ridge.size(); }
  };
  static size_t index(Side side) { return static_cast<size_t>(side); }
  ParameterArray& array_of(Side side) { return parameters_.find(rows_[index(side)].array); }
  void wait() { comm_.synchronize(stream_.handle()); }

  void place(Side side) {
    const AlsRows& rows = rows_[index(side)];
    ParameterArray& array = array_of(side);
    const std::span<float> own = array.rows(array.value, array.owned);
    Table& table = tables_[index(side)];
    for (int rank = 0; rank < comm_.world().size; ++rank) {
      const Range blocks = shards_of_rank(parameters_.shard_count(), {rank, comm_.world().size});
      table.counts.push_back((array.block_begin[blocks.end] - array.block_begin[blocks.begin]) *
                             width_);
    }
    table.whole = DeviceArray<float>(array.block_begin.back() * width_);
    table.own = {own, stream_};
    table.block_begin = {array.block_begin, stream_};
    table.tested = {rows.tested, stream_};
    table.begin = {rows.pairs.begin, stream_};
    table.pairs = {rows.pairs.pairs, stream_};
    table.ridge = {rows.ridge, stream_};
    const int64_t blocks = std::ssize(array.block_begin) - 1;
    if (side == Side::kUser) leaves_ = DeviceArray<double>(blocks * width_ * width_);
    if (table.pairs.size() > y_.size()) y_ = DeviceArray<float>(table.pairs.size());
    if (table.n() > of_rows_.size()) {
      of_rows_ = DeviceArray<double>(table.n());
      solved_ = DeviceArray<uint8_t>(table.n());
    }
  }

  std::vector<double> gram_of(Side side, const uint8_t* tested) {
    const Table& table = tables_[index(side)];
    const int64_t blocks = table.block_begin.size() - 1;
    for_teams(blocks, kTeamThreads, 0, stream_,
              kernel::GramOfBlocks{table.block_begin.data(), table.whole.data(), tested,
                                   static_cast<int>(width_), leaves_.data()});
    for_each(width_ * width_, stream_,
             kernel::SumGrams{leaves_.data(), blocks, width_, of_all_.data()});
    std::vector<double> gram(width_ * width_);
    of_all_.download(gram, stream_);
    wait();
    return gram;
  }

  Parameters& parameters_;
  const Rows& rows_;
  Communicator& comm_;
  const int64_t width_, block_;
  const bool reads_tested_;
  DeviceStream stream_;
  Table tables_[2];
  DeviceArray<double> leaves_;              // [blocks, width, width]
  DeviceArray<double> of_all_, of_tested_;  // [width, width]
  DeviceArray<float> y_;                    // [pairs of a table]
  DeviceArray<double> of_rows_;             // [own rows of a table]
  DeviceArray<uint8_t> solved_;             // likewise
  int64_t shared_bytes_ = 0;
  DeviceArray<double> equations_;  // of the teams, where they cannot share them
};

DeviceAlsTables::DeviceAlsTables(const AlsFit& fit, Parameters& parameters, const Rows& rows,
                                 Communicator& comm)
    : state_(std::make_unique<State>(fit, parameters, rows, comm)) {}
DeviceAlsTables::~DeviceAlsTables() {
  // An error may have left work that never ends, which cudaFree would wait for.
  if (std::uncaught_exceptions() > 0) static_cast<void>(state_.release());
}
void DeviceAlsTables::publish(Side side) { state_->publish(side); }
AlsTables::Summary DeviceAlsTables::summary(Side side) { return state_->summary(side); }
std::optional<std::vector<double>> DeviceAlsTables::solve(Side side, std::span<const double> gram,
                                                          std::span<const double> gram_of_tested) {
  return state_->solve(side, gram, gram_of_tested);
}

}  // namespace kt
