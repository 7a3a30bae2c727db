#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

/// The metrics as their definitions read, in plain loops over pairs of rows. Slow on purpose.
namespace kt::reference {

struct Pair {
  int32_t item;
  double label;
  float score;
  int32_t duration;
};
using Users = std::vector<std::vector<Pair>>;
using Values = std::map<std::string, double>;

inline double cut5(double x) { return x < 0 ? 0 : x > 5 ? 5 : x; }

/// Positions of a user's pairs, best score first, smaller id first among equals.
inline std::vector<size_t> ranked(const std::vector<Pair>& user) {
  std::vector<size_t> order;
  for (size_t i = 0; i < user.size(); ++i) {
    size_t at = 0;  // how many come before i
    for (size_t j = 0; j < user.size(); ++j) {
      at += user[j].score > user[i].score || (user[j].score == user[i].score && j < i);
    }
    order.resize(std::max(order.size(), at + 1));
    order[at] = i;
  }
  return order;
}

struct Alike {
  double pairs = 0, alike = 0, tied = 0;
};

inline Alike count_alike(const std::vector<Pair>& rows) {
  Alike count;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t j = 0; j < rows.size(); ++j) {
      if (!(rows[i].label < rows[j].label)) continue;
      count.pairs += 1;
      count.alike += rows[i].score < rows[j].score;
      count.tied += rows[i].score == rows[j].score;
    }
  }
  return count;
}

/// -1 without both classes.
inline double auc(const std::vector<Pair>& rows, double threshold) {
  double right = 0, pairs = 0;
  for (const Pair& positive : rows) {
    for (const Pair& negative : rows) {
      if (positive.label < threshold || negative.label >= threshold) continue;
      pairs += 1;
      right += positive.score > negative.score ? 1 : positive.score == negative.score ? .5 : 0;
    }
  }
  return pairs == 0 ? -1 : right / pairs;
}

inline double dcg(const std::vector<double>& gains, size_t k) {
  double sum = 0;
  for (size_t i = 0; i < k && i < gains.size(); ++i) {
    sum += gains[i] / std::log2(static_cast<double>(i) + 2);
  }
  return sum;
}

inline double ndcg(const std::vector<double>& gains, size_t k) {
  std::vector<double> best = gains;
  std::sort(best.rbegin(), best.rend());
  return dcg(gains, k) / dcg(best, k);
}

/// Adds up metrics of users and takes their means.
class Means {
 public:
  void add(const std::string& name, double value) {
    sums_[name] += value;
    users_[name] += 1;
  }
  void write(Values& out) const {
    for (const auto& [name, sum] : sums_) out[name] = sum / users_.at(name);
  }

 private:
  Values sums_, users_;
};

/// The list metrics of one user for a binary label. Shapes: relevant by rank.
inline void add_lists(const std::string& label, const std::vector<bool>& relevant,
                      const std::vector<int64_t>& ks, Means& means) {
  double total = 0;
  for (bool r : relevant) total += r;
  if (total == 0) return;
  for (size_t i = 0; i < relevant.size(); ++i) {
    if (!relevant[i]) continue;
    means.add("mrr/" + label, 1 / static_cast<double>(i + 1));
    break;
  }
  const std::vector<double> gains(relevant.begin(), relevant.end());
  for (int64_t k64 : ks) {
    const auto k = static_cast<size_t>(k64);
    if (relevant.size() <= k) continue;
    double hits = 0, precisions = 0;
    for (size_t i = 0; i < k; ++i) {
      if (!relevant[i]) continue;
      hits += 1;
      double until = 0;
      for (size_t j = 0; j <= i; ++j) until += relevant[j];
      precisions += until / static_cast<double>(i + 1);
    }
    const std::string at = fmt::format("@{}/{}", k, label);
    means.add("precision" + at, hits / static_cast<double>(k));
    means.add("recall" + at, hits / total);
    means.add("hit_rate" + at, hits > 0);
    means.add("map" + at, precisions / std::min(total, static_cast<double>(k)));
    means.add("ndcg" + at, ndcg(gains, k));
    means.add("ndcg_exp" + at, ndcg(gains, k));
  }
}

/// Above the linearly interpolated 80th percentile of the pair's duration bucket?
inline std::vector<std::vector<bool>> duration_p80(const Users& users) {
  std::vector<Pair> all;
  for (const auto& user : users) all.insert(all.end(), user.begin(), user.end());
  const auto bucket = [&](const Pair& pair) {
    size_t shorter = 0;
    for (const Pair& other : all) shorter += other.duration < pair.duration;
    return 20 * shorter / all.size();
  };
  std::map<size_t, std::vector<double>> labels;
  for (const Pair& pair : all) labels[bucket(pair)].push_back(pair.label);
  std::map<size_t, double> percentile;
  for (auto& [b, values] : labels) {
    std::sort(values.begin(), values.end());
    const size_t fifths = 4 * (values.size() - 1);
    const double low = values[fifths / 5];
    const double high = values[std::min(fifths / 5 + 1, values.size() - 1)];
    percentile[b] = low + (high - low) * static_cast<double>(fifths % 5) / 5;
  }
  std::vector<std::vector<bool>> above;
  for (const auto& user : users) {
    std::vector<bool> of_user;
    for (const Pair& pair : user) of_user.push_back(pair.label > percentile[bucket(pair)]);
    above.push_back(of_user);
  }
  return above;
}

/// What scikit-learn's ndcg_score gives for the ids of two lists of the same items.
inline double ndcg_on_ids(const std::vector<int64_t>& truth, const std::vector<int64_t>& predicted,
                          size_t k) {
  std::vector<size_t> places(truth.size());
  for (size_t i = 0; i < places.size(); ++i) places[i] = i;
  std::sort(places.begin(), places.end(),
            [&](size_t a, size_t b) { return predicted[a] > predicted[b]; });
  std::vector<double> gains;
  for (const size_t place : places) gains.push_back(static_cast<double>(truth[place]));
  return ndcg(gains, k);
}

/// The ids of one user ordered by label and by score: as they are, descending; or rounded half to even, ascending.
inline double ndcg_on_ids(const std::vector<Pair>& user, const std::vector<int64_t>& number,
                          bool rounded) {
  const auto list = [&](auto&& value_of) {
    std::vector<std::pair<double, int64_t>> order;
    for (const Pair& pair : user) {
      const double value = value_of(pair);
      order.emplace_back(rounded ? std::nearbyint(value) : -value,
                         number[static_cast<size_t>(pair.item)]);
    }
    std::sort(order.begin(), order.end());
    std::vector<int64_t> ids;
    for (const auto& [value, id] : order) ids.push_back(id);
    return ids;
  };
  return ndcg_on_ids(list([](const Pair& pair) { return pair.label; }),
                     list([](const Pair& pair) { return static_cast<double>(pair.score); }), 10);
}

/// Videos with a relevant row among the first ten rows, over relevant rows; -1 without one. Shapes: order by rank.
inline double recall_repeated_rows(const std::vector<Pair>& user,
                                   const std::vector<size_t>& order) {
  std::set<int32_t> relevant, found;
  double rows = 0;
  for (const Pair& pair : user)
    if (pair.label >= 1) {
      relevant.insert(pair.item);
      rows += 1;
    }
  for (size_t i = 0; i < 10; ++i)
    if (relevant.contains(user[order[i]].item)) found.insert(user[order[i]].item);
  return rows == 0 ? -1 : static_cast<double>(found.size()) / rows;
}

/// The discount of the first relevant of the first ten rows, 0 without one; -1 without a relevant row at all.
inline double first_hit_discount(const std::vector<Pair>& user, const std::vector<size_t>& order) {
  bool any = false;
  for (const Pair& pair : user) any = any || pair.label >= 1;
  for (size_t i = 0; any && i < 10; ++i)
    if (user[order[i]].label >= 1) return 1 / std::log2(static_cast<double>(i) + 2);
  return any ? 0 : -1;
}

struct Options {
  std::map<std::string, double> thresholds = {{"ratio>=1", 1}, {"ratio>=2", 2}};
  std::map<std::string, size_t> tops = {{"top-50", 50}};
  bool duration_p80 = true;
  std::vector<int64_t> item_number;  ///< none: no metrics on ids
};

inline Values metrics(const Users& users, const std::vector<int64_t>& item_rows,
                      const std::vector<int64_t>& ks, const Options& options = {}) {
  Values out;
  Means means;
  std::vector<Pair> all;
  for (const auto& user : users) all.insert(all.end(), user.begin(), user.end());
  const auto n = static_cast<double>(all.size());

  double mean = 0, mse = 0, mae = 0, mse_cut = 0, mae_cut = 0, spread = 0;
  for (const Pair& pair : all) {
    const double error = static_cast<double>(pair.score) - pair.label;
    const double error_cut = cut5(static_cast<double>(pair.score)) - cut5(pair.label);
    mean += pair.label / n;
    mse += error * error / n;
    mae += std::abs(error) / n;
    mse_cut += error_cut * error_cut / n;
    mae_cut += std::abs(error_cut) / n;
  }
  for (const Pair& pair : all) spread += (pair.label - mean) * (pair.label - mean) / n;
  out = {{"mse", mse},
         {"mae", mae},
         {"rmse", std::sqrt(mse)},
         {"mse_clipped", mse_cut},
         {"rmse_clipped", std::sqrt(mse_cut)},
         {"mae_clipped", mae_cut},
         {"two_tower.mae_scaled", mae_cut * 2 / 5},
         {"two_tower.rmse_scaled", std::sqrt(mse_cut) * 2 / 5}};
  if (spread > 1e-12) out["r2"] = 1 - mse / spread;
  for (const auto& [label, threshold] : options.thresholds)
    if (const double value = auc(all, threshold); value >= 0) out["auc@" + label] = value;
  if (const Alike count = count_alike(all); count.pairs > 0) {
    out["xauc"] = count.alike / count.pairs;
    out["xauc_ties"] = (count.alike + count.tied / 2) / count.pairs;
  }

  Values gauc, gauc_rows;
  double all_rows = static_cast<double>(item_rows.size());
  for (int64_t rows : item_rows) all_rows += static_cast<double>(rows);
  std::map<int64_t, std::set<int32_t>> listed;
  const auto p80 = duration_p80(users);
  for (size_t u = 0; u < users.size(); ++u) {
    const auto& user = users[u];
    const auto order = ranked(user);
    double user_mae = 0;
    for (const Pair& pair : user) {
      user_mae +=
          std::abs(static_cast<double>(pair.score) - pair.label) / static_cast<double>(user.size());
    }
    means.add("mae_macro", user_mae);
    means.add("ncf.mae_per_user", user_mae);
    if (const Alike count = count_alike(user); count.pairs > 0) {
      means.add("xauc_user", count.alike / count.pairs);
    }
    for (const auto& [label, threshold] : options.thresholds)
      if (const double user_auc = auc(user, threshold); user_auc >= 0) {
        gauc[label] += user_auc * static_cast<double>(user.size());
        gauc_rows[label] += static_cast<double>(user.size());
      }
    if (user.size() > 10) {
      if (!options.item_number.empty()) {
        means.add("feature_mlp.ndcg@10_on_ids", ndcg_on_ids(user, options.item_number, false));
        means.add("feature_mlp.ndcg@10_on_ids_rounded",
                  ndcg_on_ids(user, options.item_number, true));
      }
      if (const double recall = recall_repeated_rows(user, order); recall >= 0)
        means.add("two_tower.recall_repeated_rows", recall);
      if (const double discount = first_hit_discount(user, order); discount >= 0)
        means.add("als.ndcg_any_hit", discount);
    }

    std::map<std::string, std::vector<bool>> relevant;  // by label, by rank
    std::vector<bool> top50;
    std::vector<double> gains, gains_exp, information;
    for (size_t at : order) {
      size_t higher = 0;
      for (size_t j = 0; j < user.size(); ++j) {
        higher += user[j].label > user[at].label || (user[j].label == user[at].label && j < at);
      }
      for (const auto& [label, threshold] : options.thresholds)
        relevant[label].push_back(user[at].label >= threshold);
      for (const auto& [label, top] : options.tops) relevant[label].push_back(higher < top);
      top50.push_back(higher < 50);
      if (options.duration_p80) relevant["duration-p80"].push_back(p80[u][at]);
      gains.push_back(cut5(user[at].label));
      gains_exp.push_back(std::pow(2, cut5(user[at].label)) - 1);
      const auto rows = static_cast<double>(item_rows[static_cast<size_t>(user[at].item)]);
      information.push_back(-std::log2((rows + 1) / all_rows));
    }
    for (const auto& [label, by_rank] : relevant) add_lists(label, by_rank, ks, means);
    for (int64_t k64 : ks) {
      const auto k = static_cast<size_t>(k64);
      if (user.size() <= k) continue;
      const std::string at = fmt::format("@{}", k);
      double sum = 0;
      for (size_t i = 0; i < k; ++i) {
        sum += information[i];
        listed[k64].insert(user[order[i]].item);
      }
      means.add("novelty" + at, sum / static_cast<double>(k));
      if (*std::max_element(gains.begin(), gains.end()) == 0) continue;
      means.add("ndcg" + at + "/graded5", ndcg(gains, k));
      means.add("ndcg_exp" + at + "/graded5", ndcg(gains_exp, k));
    }
    if (user.size() > 50) {
      std::vector<double> retrieved(top50.begin(), top50.begin() + 50);
      double hits = 0;
      for (double hit : retrieved) hits += hit;
      means.add("ncf.hit_ratio@50", hits / 50);
      means.add("cosine.jaccard@50", hits / (100 - hits));
      means.add("ncf.ndcg@50_ideal_of_retrieved", hits > 0 ? ndcg(retrieved, 50) : 0);
    }
  }
  for (const auto& [label, sum] : gauc) out["gauc@" + label] = sum / gauc_rows.at(label);
  for (const auto& [k, items] : listed) {
    out[fmt::format("coverage@{}", k)] =
        static_cast<double>(items.size()) / static_cast<double>(item_rows.size());
  }
  means.write(out);
  return out;
}

}  // namespace kt::reference
