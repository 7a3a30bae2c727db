#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// A report as one HTML file that asks nothing of any network: sections of text, tables and pictures. Pictures are drawn
/// by the charting library Chart.js, whose file is in the page; each is described to screen readers and has its numbers
/// beside it as a table. Whatever text comes in is escaped.
namespace kt {

/// A number is written by `number_text`.
using Cell = std::variant<std::string, double, int64_t>;

/// Shapes: rows [n][columns].
struct PageTable {
  std::string title;
  std::vector<std::string> columns;  ///< with units
  std::vector<std::vector<Cell>> rows;
};

struct Axis {
  std::string label;  ///< with its unit
  bool log = false;   ///< what is not above 0 is left out
};

/// kEvents: large and of a form of their own, for what happened at places of a curve.
enum class Mark { kLine, kSteps, kPoints, kEvents };

/// Shapes: x, y [n], and colour [n] or empty. A y that is not finite is a gap.
struct Series {
  std::string name;
  Mark mark = Mark::kLine;
  std::vector<double> x, y;
  std::vector<double> colour =
      {};             ///< of each point, from the least (blue) to the greatest (yellow)
  bool fill = false;  ///< down to the axis
};

struct Chart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

/// Bars side by side, a group a name. Shapes: values [names], low and high [names] or empty: an interval drawn as the bar,
/// and the value as a mark in it.
struct BarSeries {
  std::string name;
  std::vector<double> values, low = {}, high = {};
};

struct BarChart {
  std::string title;
  std::string names_label;
  std::vector<std::string> names;
  Axis values;
  std::vector<BarSeries> series;
  bool lying = false;  ///< names along the left side: for long ones
};

/// A table whose cells are coloured by how far they are from 0. Shapes: values [rows][columns].
struct HeatMap {
  std::string title;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;
  double extreme = 1;  ///< what has the full colour
};

/// A line of each run through what was chosen for it. Shapes: values [axes] each.
struct ParallelLine {
  std::string name;
  std::vector<Cell> values;
};
struct ParallelCoordinates {
  std::string title;
  /// Texts on one are placed in order of appearance; numbers above 0 of which one is 30 times another, by logarithms.
  std::vector<std::string> axes;
  std::vector<ParallelLine> lines;
  size_t colour_axis = 0;  ///< numbers, which colour the lines
};

class Page {
 public:
  Page(std::string_view title, std::string_view subtitle);

  /// Begins a section; `id` is its anchor: letters, digits, hyphens.
  void section(std::string_view id, std::string_view title);
  void text(std::string_view paragraph);
  /// What a reader has to know before believing what follows.
  void warning(std::string_view paragraph);
  void add(const PageTable& table);
  void add(const Chart& chart);
  void add(const BarChart& chart);
  void add(const HeatMap& map);
  void add(const ParallelCoordinates& lines);

  /// The whole file.
  std::string html() const;

 private:
  void picture(std::string_view title, std::string_view about, const std::string& json,
               const PageTable& numbers);

  std::string title_, subtitle_;
  std::string contents_, body_;
  bool in_section_ = false;
  int64_t pictures_ = 0;
};

/// A number as tables have it: four digits, or whole from 10,000 on; empty for one that is not finite.
std::string number_text(double value);

std::string cell_text(const Cell& cell);

/// `text` for the inside of an element or of an attribute in quotes.
std::string html_escaped(std::string_view text);

/// At most `most` of n places, evenly spaced, the first and the last among them: what a picture of many points takes.
std::vector<size_t> thinned(size_t n, size_t most);

}  // namespace kt
