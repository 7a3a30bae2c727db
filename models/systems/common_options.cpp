#include "models/systems/common_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "launch/base/errors.h"

namespace kt {
namespace {

template <class E, size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<Loss, 8> kLosses{{{Loss::kSquared, "squared"},
                                  {Loss::kBce, "bce"},
                                  {Loss::kHuber, "huber"},
                                  {Loss::kBpr, "bpr"},
                                  {Loss::kSoftmax, "softmax"},
                                  {Loss::kLambdaRank, "lambdarank"},
                                  {Loss::kListNet, "listnet"},
                                  {Loss::kApproxNdcg, "approx_ndcg"}}};
constexpr Names<NegativeKind, 5> kNegatives{{{NegativeKind::kAll, "all"},
                                             {NegativeKind::kUniform, "uniform"},
                                             {NegativeKind::kPopularity, "popularity"},
                                             {NegativeKind::kShown, "shown"},
                                             {NegativeKind::kRows, "rows"}}};
constexpr Names<TargetKind, 5> kTargets{{{TargetKind::kRaw, "raw"},
                                         {TargetKind::kRange, "range"},
                                         {TargetKind::kStandard, "standard"},
                                         {TargetKind::kLog, "log"},
                                         {TargetKind::kPositive, "positive"}}};

template <class E, size_t N>
std::vector<std::string> words_of(const Names<E, N>& names) {
  std::vector<std::string> words;
  for (const auto& [value, name] : names) words.emplace_back(name);
  return words;
}
template <class E, size_t N>
std::string word_of(const Names<E, N>& names, E value) {
  for (const auto& [known, name] : names)
    if (known == value) return std::string(name);
  KT_CHECK(false, "a value without a name");
}
template <class E, size_t N>
E value_of(const Names<E, N>& names, std::string_view word) {
  for (const auto& [value, name] : names)
    if (name == word) return value;
  KT_CHECK(false, "a word without a value: {}", word);
}

double deviation(const OptionValues& values, int64_t rows, int64_t with_rows) {
  const std::string& init = values.word("init");
  if (init == "given") return values.number("init_deviation");
  const int64_t counted = init == "rows" ? rows : with_rows;
  // A table without rows draws nothing; its deviation only has to be finite.
  return std::sqrt(2.0 / static_cast<double>(std::max<int64_t>(counted, 1)));
}

}  // namespace

void add_objective_options(std::vector<OptionDeclaration>& to, const Objective& standard) {
  to.push_back(word_option("loss", word_of(kLosses, standard.loss), words_of(kLosses),
                           "of a row's output and target; bpr, softmax: of a row whose target is "
                           "1 beside drawn negatives, an order alone; lambdarank, listnet, "
                           "approx_ndcg: of a list of a user's rows, whose targets are gains, an "
                           "order alone"));
  to.push_back(number_option("delta", standard.delta, {1e-6, 1e6},
                             "huber: errors beyond it count linearly"));
  to.push_back(word_option("target.kind", word_of(kTargets, standard.target), words_of(kTargets),
                           "what the label (cut by data.target.clip) becomes: itself; linearly "
                           "[low, high] of [0, clip]; less the mean, by the deviation; log(1 + "
                           "label); 1 from threshold on, else 0"));
  to.push_back(number_option("target.low", standard.low, {-1e6, 1e6}, "range: where 0 goes"));
  to.push_back(
      number_option("target.high", standard.high, {-1e6, 1e6}, "range: where the clip goes"));
  to.push_back(number_option("target.threshold", standard.threshold, {-1e30, 1e30},
                             "positive: the least label that is one"));
  to.push_back(word_option(
      "negatives.kind", word_of(kNegatives, standard.negatives), words_of(kNegatives),
      "all (softmax): every video, none is drawn; bpr, softmax: videos that the user "
      "has no positive row of, uniform or by their positive rows^.75, or those shown "
      "to it; rows (bpr): any row of "
      "the user, the larger target is the positive, the difference weighs; rows (lists): "
      "other rows of the user, each once"));
  to.push_back(
      whole_option("negatives.count", standard.negative_count, {1, 4096},
                   "softmax: of each positive row; bpr has one; lists: rows beside a row"));
  to.push_back(flag_option("negatives.exclude_block", standard.exclude_block,
                           "uniform, popularity: users of the test table draw none of its videos; "
                           "it reads which are tested, never a label"));
  to.push_back(number_option("temperature", standard.temperature, {1e-3, 1e3},
                             "of losses that rank: divides outputs"));
}

Objective objective_of(const OptionValues& values) {
  return {.loss = value_of(kLosses, values.word("loss")),
          .delta = values.number("delta"),
          .target = value_of(kTargets, values.word("target.kind")),
          .low = values.number("target.low"),
          .high = values.number("target.high"),
          .threshold = values.number("target.threshold"),
          .negatives = value_of(kNegatives, values.word("negatives.kind")),
          .negative_count = values.whole("negatives.count"),
          .exclude_block = values.flag("negatives.exclude_block"),
          .temperature = values.number("temperature")};
}

OptionDeclaration penalty_option() {
  return number_option("penalty", 0, {0, 1e6},
                       "times the squared embeddings of a row's user and video, added to its loss");
}

void add_init_options(std::vector<OptionDeclaration>& to, const std::string& standard) {
  to.push_back(word_option("init", standard, {"rows", "trained", "given"},
                           "initial deviation of embeddings: sqrt(2 / rows) of the table, the same "
                           "of the rows that have training rows, or init_deviation"));
  to.push_back(number_option("init_deviation", .1, {0, 100}, "with init given"));
}

double user_deviation(const OptionValues& values, const SystemInputs& inputs) {
  return deviation(values, inputs.users, inputs.users_with_rows);
}
double item_deviation(const OptionValues& values, const SystemInputs& inputs) {
  return deviation(values, inputs.items, inputs.items_with_rows);
}

}  // namespace kt
