#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

/// Alternating least squares by plain loops over all pairs.
namespace kt {

/// Gauss with pivots. Shapes: matrix [n, n], right [n].
inline std::vector<double> plain_solution(std::vector<double> matrix, std::vector<double> right) {
  const size_t n = right.size();
  for (size_t j = 0; j < n; ++j) {
    size_t pivot = j;
    for (size_t i = j; i < n; ++i)
      if (std::abs(matrix[i * n + j]) > std::abs(matrix[pivot * n + j])) pivot = i;
    for (size_t k = 0; k < n; ++k) std::swap(matrix[j * n + k], matrix[pivot * n + k]);
    std::swap(right[j], right[pivot]);
    for (size_t i = 0; i < n; ++i) {
      if (i == j) continue;
      const double factor = matrix[i * n + j] / matrix[j * n + j];
      for (size_t k = j; k < n; ++k) matrix[i * n + k] -= factor * matrix[j * n + k];
      right[i] -= factor * right[j];
    }
  }
  for (size_t j = 0; j < n; ++j) right[j] /= matrix[j * n + j];
  return right;
}

struct PlainAls {
  struct Row {
    size_t user, video;
    double weight, target;
  };
  std::vector<Row> rows;                  ///< those that count
  std::vector<std::vector<double>> w, h;  ///< [users][width], [videos][width]
  std::vector<std::vector<double>> zero;  ///< [users][videos] weight of target 0
  std::vector<double> user_ridge, video_ridge;

  void solve_users() {
    for (size_t u = 0; u < w.size(); ++u)
      w[u] = solve(
          h, user_ridge[u], [&](size_t i) { return zero[u][i]; },
          [&](auto&& add) {
            for (const Row& row : rows)
              if (row.user == u) add(row.video, row);
          });
  }
  void solve_videos() {
    for (size_t i = 0; i < h.size(); ++i)
      h[i] = solve(
          w, video_ridge[i], [&](size_t u) { return zero[u][i]; },
          [&](auto&& add) {
            for (const Row& row : rows)
              if (row.video == i) add(row.user, row);
          });
  }
  double objective() const {
    double sum = 0;
    for (const Row& row : rows)
      sum += row.weight * std::pow(row.target - dot(w[row.user], h[row.video]), 2);
    for (size_t u = 0; u < w.size(); ++u)
      for (size_t i = 0; i < h.size(); ++i) sum += zero[u][i] * std::pow(dot(w[u], h[i]), 2);
    for (size_t u = 0; u < w.size(); ++u) sum += user_ridge[u] * dot(w[u], w[u]);
    for (size_t i = 0; i < h.size(); ++i) sum += video_ridge[i] * dot(h[i], h[i]);
    return sum;
  }

 private:
  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    return sum;
  }
  template <class Zero, class EachRow>
  static std::vector<double> solve(const std::vector<std::vector<double>>& table, double ridge,
                                   Zero&& zero_of, EachRow&& each_row) {
    const size_t n = table[0].size();
    std::vector<double> matrix(n * n, 0), right(n, 0);
    const auto add = [&](const std::vector<double>& x, double weight) {
      for (size_t i = 0; i < n; ++i)
        for (size_t k = 0; k < n; ++k) matrix[i * n + k] += weight * x[i] * x[k];
    };
    for (size_t other = 0; other < table.size(); ++other) add(table[other], zero_of(other));
    bool any = false;
    each_row([&](size_t other, const Row& row) {
      any = true;
      add(table[other], row.weight);
      for (size_t k = 0; k < n; ++k) right[k] += row.weight * row.target * table[other][k];
    });
    if (!any) return right;
    for (size_t k = 0; k < n; ++k) matrix[k * n + k] += ridge;
    return plain_solution(matrix, right);
  }
};

}  // namespace kt
