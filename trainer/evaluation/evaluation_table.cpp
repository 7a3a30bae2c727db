#include "trainer/evaluation/evaluation_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kt {

namespace {

constexpr size_t kColumns = 80;

std::string number(double value) {
  return std::abs(value) < 1000 ? fmt::format("{:.4f}", value) : fmt::format("{:.4g}", value);
}

/// 1234567 -> 1,234,567.
std::string count(int64_t value) {
  std::string digits = fmt::format("{}", value);
  for (auto at = std::ssize(digits) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

/// `title` and the parts, separated by commas, on as many lines as they need.
std::string wrapped(const std::string& title, const std::vector<std::string>& parts) {
  std::string text, line = title;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part = " " + parts[i] + (i + 1 < parts.size() ? "," : "");
    if (line.size() + part.size() > kColumns) {
      text += line + "\n";
      line.assign(1, ' ');
    }
    line += part;
  }
  return text + line + "\n";
}

class Table {
 public:
  /// What is said of a metric: "value (chance)", or "[low, high]".
  enum class Cells { kValues, kIntervals };

  Table(const EvaluationResult& result, Cells cells) : result_(result), cells_(cells) {}

  /// Empty when there is none.
  std::string cell(const std::string& name) const {
    if (cells_ == Cells::kIntervals) {
      const auto interval = result_.intervals.find(name);
      if (interval == result_.intervals.end()) return {};
      return fmt::format("[{}, {}]", number(interval->second.low), number(interval->second.high));
    }
    const auto value = result_.metrics.find(name);
    if (value == result_.metrics.end()) return {};
    return fmt::format("{} ({})", number(value->second), number(result_.chance.at(name)));
  }

  /// Single figures, two to a line.
  std::string figures(const std::string& title, const std::vector<std::string>& names) const {
    std::string text;
    int64_t shown = 0;
    for (const std::string& name : names) {
      const std::string figure = cell(name);
      if (figure.empty()) continue;
      // A name too long for its column is alone on its line.
      const bool wide = name.size() > 16;
      if (wide && shown % 2 == 1) ++shown;
      if (shown % 2 == 0) text += "\n ";
      text += fmt::format(" {:<16} {:>19}  ", name, figure);
      shown += wide ? 2 : 1;
    }
    return text.empty() ? text : title + trimmed_lines(text) + "\n";
  }

  /// One row a metric, one column a K; `format` makes the name of a metric from its row and K.
  template <class Name>
  std::string lists(const std::string& title, const std::vector<std::string>& rows,
                    Name&& name) const {
    constexpr size_t kPerBlock = 3;
    std::string text;
    for (size_t begin = 0; begin < result_.k.size(); begin += kPerBlock) {
      const size_t end = std::min(begin + kPerBlock, result_.k.size());
      std::string block = fmt::format("\n{:<16}", title);
      for (size_t k = begin; k < end; ++k) {
        block += fmt::format(" {:>20}", fmt::format("@{}", result_.k[k]));
      }
      bool any = false;
      for (const std::string& row : rows) {
        block += fmt::format("\n  {:<14}", row);
        for (size_t k = begin; k < end; ++k) {
          const std::string value = cell(name(row, result_.k[k]));
          any = any || !value.empty();
          block += fmt::format(" {:>20}", value.empty() ? "-" : value);
        }
      }
      if (any) text += block;
    }
    return text.empty() ? text : text.substr(1) + "\n";
  }

 private:
  static std::string trimmed_lines(const std::string& text) {
    std::string out;
    for (char c : text) {
      if (c == '\n') out.erase(out.find_last_not_of(' ') + 1);
      out += c;
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out;
  }

  const EvaluationResult& result_;
  Cells cells_;
};

/// Of what most look at; the rest is in the report.
std::string intervals_text(const EvaluationResult& result) {
  const Table table(result, Table::Cells::kIntervals);
  std::vector<std::string> figures = {"mse_clipped", "mae_clipped"};
  std::vector<std::string> lists = {"graded5"};
  for (const std::string& label : result.labels) {
    figures.push_back("gauc@" + label);
    lists.push_back(label);
  }
  return table.figures("95 % intervals (other users of the same kind)", figures) +
         table.lists("ndcg", lists, [](const std::string& label, int64_t k) {
           return fmt::format("ndcg@{}/{}", k, label);
         });
}

/// What is without training rows, where anything is.
std::string untrained_text(const Untrained& untrained) {
  if (untrained.pairs == 0) return {};
  std::vector<std::string> parts = {fmt::format("{} users", count(untrained.users)),
                                    fmt::format("{} items", count(untrained.items)),
                                    fmt::format("{} pairs of either", count(untrained.pairs))};
  for (const auto& [name, value] : untrained.metrics)
    parts.push_back(
        fmt::format("{} {} ({})", name, number(value), number(untrained.chance.at(name))));
  return wrapped("without training rows:", parts);
}

}  // namespace

std::string evaluation_table(const EvaluationTitle& title, const EvaluationResult& result) {
  const Table table(result, Table::Cells::kValues);
  std::string text = fmt::format("Evaluation of {}", title.dataset);
  if (!title.checkpoint.empty()) text += fmt::format(", {}", title.checkpoint);
  text += fmt::format(": {} users, {} pairs\n", count(result.users), count(result.pairs));
  if (title.synthetic) {
    text += "The data is synthetic: these figures are not those of the real KuaiRec.\n";
  }
  if (result.catalogue)
    text += "Lists and mrr are of all items but those a user has training rows of.\n";
  if (!result.metrics.empty())
    text += "In brackets chance: a random order, or for errors and r2 the training mean.\n\n";
  text += table.figures("errors", {"mse", "mse_clipped", "rmse", "rmse_clipped", "mae",
                                   "mae_clipped", "mae_macro", "r2"});
  std::vector<std::string> orders;
  for (const std::string& label : result.labels) {
    orders.push_back("auc@" + label);
    orders.push_back("gauc@" + label);
  }
  orders.insert(orders.end(), {"xauc", "xauc_ties", "xauc_user"});
  for (const std::string& label : result.labels) orders.push_back("mrr/" + label);
  text += table.figures("order", orders);
  text += table.figures("play time", {"play_time.mae_s", "play_time.xauc", "play_time.xauc_ties",
                                      "play_time.calibration"});
  for (const std::string& label : result.labels) {
    text += table.lists(
        label, {"precision", "recall", "hit_rate", "ndcg", "map"},
        [&](const std::string& row, int64_t k) { return fmt::format("{}@{}/{}", row, k, label); });
  }
  text += table.lists("graded5", {"ndcg", "ndcg_exp"}, [](const std::string& row, int64_t k) {
    return fmt::format("{}@{}/graded5", row, k);
  });
  text += table.lists("lists", {"coverage", "novelty"}, [](const std::string& row, int64_t k) {
    return fmt::format("{}@{}", row, k);
  });
  text +=
      table.figures("as the reference systems computed them",
                    {"ncf.hit_ratio@50", "ncf.mae_per_user", "ncf.ndcg@50_ideal_of_retrieved",
                     "feature_mlp.ndcg@10_on_ids", "feature_mlp.ndcg@10_on_ids_rounded",
                     "two_tower.mae_scaled", "two_tower.rmse_scaled",
                     "two_tower.recall_repeated_rows", "cosine.jaccard@50", "als.ndcg_any_hit"});
  text += intervals_text(result);
  text += untrained_text(result.untrained);

  std::vector<std::string> skipped;
  for (const auto& [label, users] : result.skipped_users) {
    if (users > 0) skipped.push_back(fmt::format("{} {}", label, count(users)));
  }
  if (!skipped.empty()) text += wrapped("users skipped:", skipped);
  for (const std::string& note : result.notes) text += note + "\n";
  return text;
}

}  // namespace kt
