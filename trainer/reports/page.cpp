#include "trainer/reports/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/math.h"
#include "trainer/reports/assets.h"

namespace kt {
namespace {

using nlohmann::json;

json json_of(const Axis& axis) { return {{"label", axis.label}, {"log", axis.log}}; }

json json_of(const Series& series) {
  constexpr const char* kMarks[] = {"line", "steps", "points", "events"};
  json points = json::array();
  for (size_t i = 0; i < series.x.size(); ++i)
    points.push_back({finite_or_null(series.x[i]), finite_or_null(series.y[i])});
  json colour = json::array();
  for (const double value : series.colour) colour.push_back(finite_or_null(value));
  return {{"name", series.name},
          {"mark", kMarks[static_cast<size_t>(series.mark)]},
          {"points", points},
          {"fill", series.fill},
          {"colour", std::move(colour)}};
}

json json_of(const std::vector<double>& values) {
  json list = json::array();
  for (const double value : values) list.push_back(finite_or_null(value));
  return list;
}

/// JSON inside a script element, which no text in it can end.
std::string script_json(const json& document) {
  std::string text = to_text(document), escaped;
  for (const char c : text) {
    if (c == '<')
      escaped += "\\u003c";
    else
      escaped += c;
  }
  return escaped;
}

/// Long texts are what a table may break into lines.
const char* class_of(const Cell& cell) {
  constexpr size_t kLongText = 40;
  const auto* text = std::get_if<std::string>(&cell);
  if (!text) return "";
  return text->size() > kLongText ? " class=\"text long\"" : " class=\"text\"";
}

std::string table_html(const PageTable& table) {
  std::string html = "<div class=\"scroll\"><table>";
  if (!table.title.empty()) html += "<caption>" + html_escaped(table.title) + "</caption>";
  html += "<thead><tr>";
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const bool is_text = !table.rows.empty() && c < table.rows[0].size() &&
                         std::holds_alternative<std::string>(table.rows[0][c]);
    html += std::string("<th scope=\"col\"") + (is_text ? " class=\"text\">" : ">") +
            html_escaped(table.columns[c]) + "</th>";
  }
  html += "</tr></thead><tbody>";
  for (const std::vector<Cell>& row : table.rows) {
    html += "<tr>";
    for (const Cell& cell : row)
      html += std::string("<td") + class_of(cell) + ">" + html_escaped(cell_text(cell)) + "</td>";
    html += "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

/// The points of all series, a row a point.
PageTable numbers_of(const Chart& chart) {
  PageTable table{.columns = {"series", chart.x.label, chart.y.label}};
  const bool coloured = std::ranges::any_of(
      chart.series, [](const Series& series) { return !series.colour.empty(); });
  if (coloured) table.columns.push_back("colour");
  for (const Series& series : chart.series)
    for (size_t i = 0; i < series.x.size(); ++i) {
      table.rows.push_back({series.name, series.x[i], series.y[i]});
      if (coloured)
        table.rows.back().push_back(series.colour.empty() ? Cell(std::string())
                                                          : Cell(series.colour[i]));
    }
  return table;
}

PageTable numbers_of(const BarChart& chart) {
  PageTable table{.columns = {chart.names_label}};
  for (const BarSeries& series : chart.series) {
    table.columns.push_back(series.name);
    if (!series.low.empty()) table.columns.insert(table.columns.end(), {"from", "to"});
  }
  for (size_t i = 0; i < chart.names.size(); ++i) {
    std::vector<Cell> row{chart.names[i]};
    for (const BarSeries& series : chart.series) {
      row.push_back(series.values[i]);
      if (!series.low.empty()) row.insert(row.end(), {series.low[i], series.high[i]});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

PageTable numbers_of(const ParallelCoordinates& lines) {
  PageTable table{.columns = {"run"}};
  table.columns.insert(table.columns.end(), lines.axes.begin(), lines.axes.end());
  for (const ParallelLine& line : lines.lines) {
    std::vector<Cell> row{line.name};
    row.insert(row.end(), line.values.begin(), line.values.end());
    table.rows.push_back(std::move(row));
  }
  return table;
}

/// Where each line meets an axis, 0 to 1 from its least to its greatest; texts in order of appearance. A missing
/// number meets it nowhere.
std::vector<double> places_on_axis(const ParallelCoordinates& lines, size_t axis) {
  std::map<std::string, double> texts;
  std::vector<double> places;
  double low = INFINITY, high = -INFINITY;
  for (const ParallelLine& line : lines.lines) {
    const Cell& cell = line.values[axis];
    double value = NAN;
    if (const auto* text = std::get_if<std::string>(&cell))
      value = texts.try_emplace(*text, static_cast<double>(texts.size())).first->second;
    else if (const auto* whole = std::get_if<int64_t>(&cell))
      value = static_cast<double>(*whole);
    else
      value = std::get<double>(cell);
    places.push_back(value);
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (texts.empty() && low > 0 && high > 30 * low) {
    for (double& place : places) place = math::log(place);
    low = math::log(low);
    high = math::log(high);
  }
  for (double& place : places) place = high > low ? (place - low) / (high - low) : place - low + .5;
  return places;
}

}  // namespace

std::string number_text(double value) {
  if (!std::isfinite(value)) return {};
  const double size = std::abs(value);
  return size >= 1e4 && size < 1e15 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

std::string cell_text(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* whole = std::get_if<int64_t>(&cell)) return fmt::format("{}", *whole);
  return number_text(std::get<double>(cell));
}

std::string html_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  return escaped;
}

std::vector<size_t> thinned(size_t n, size_t most) {
  std::vector<size_t> places;
  const size_t kept = std::min(n, most);
  for (size_t i = 0; i < kept; ++i) places.push_back(kept == n ? i : i * (n - 1) / (kept - 1));
  return places;
}

Page::Page(std::string_view title, std::string_view subtitle)
    : title_(title), subtitle_(subtitle) {}

void Page::section(std::string_view id, std::string_view title) {
  if (in_section_) body_ += "</section>\n";
  in_section_ = true;
  contents_ += fmt::format("<li><a href=\"#{0}\">{1}</a></li>", id, html_escaped(title));
  body_ += fmt::format(
      "<section id=\"{0}\" aria-labelledby=\"{0}-title\"><h2 id=\"{0}-title\">{1}</h2>\n", id,
      html_escaped(title));
}

void Page::text(std::string_view paragraph) { body_ += "<p>" + html_escaped(paragraph) + "</p>\n"; }

void Page::warning(std::string_view paragraph) {
  body_ += "<p class=\"warning\" role=\"note\">" + html_escaped(paragraph) + "</p>\n";
}

void Page::add(const PageTable& table) { body_ += table_html(table); }

void Page::picture(std::string_view title, std::string_view about, const std::string& json,
                   const PageTable& numbers) {
  const std::string name = html_escaped(title);
  body_ += fmt::format(
      "<figure><figcaption>{0}</figcaption>\n<div class=\"canvas\"><canvas id=\"picture-{1}\" "
      "role=\"img\" "
      "aria-label=\"{0}. {2}\"></canvas></div>\n<script type=\"application/json\" "
      "data-picture=\"picture-{1}\">{3}</script>\n<details><summary>Numbers of this "
      "picture</summary>{4}"
      "</details></figure>\n",
      name, ++pictures_, html_escaped(about), json, table_html(numbers));
}

void Page::add(const Chart& chart) {
  json series = json::array();
  for (const Series& one : chart.series) series.push_back(json_of(one));
  picture(chart.title, fmt::format("{} over {}", chart.y.label, chart.x.label),
          script_json({{"kind", "chart"},
                       {"x", json_of(chart.x)},
                       {"y", json_of(chart.y)},
                       {"series", std::move(series)}}),
          numbers_of(chart));
}

void Page::add(const BarChart& chart) {
  json series = json::array();
  for (const BarSeries& one : chart.series)
    series.push_back({{"name", one.name},
                      {"values", json_of(one.values)},
                      {"low", json_of(one.low)},
                      {"high", json_of(one.high)}});
  picture(chart.title, fmt::format("{} by {}", chart.values.label, chart.names_label),
          script_json({{"kind", "bars"},
                       {"names", chart.names},
                       {"names_label", chart.names_label},
                       {"values", json_of(chart.values)},
                       {"lying", chart.lying},
                       {"series", std::move(series)}}),
          numbers_of(chart));
}

void Page::add(const ParallelCoordinates& lines) {
  std::vector<json> places(lines.lines.size(), json::array());
  for (size_t a = 0; a < lines.axes.size(); ++a) {
    const std::vector<double> on_axis = places_on_axis(lines, a);
    for (size_t l = 0; l < places.size(); ++l) places[l].push_back(finite_or_null(on_axis[l]));
  }
  json drawn = json::array();
  for (size_t l = 0; l < lines.lines.size(); ++l) {
    json texts = json::array();
    for (const Cell& cell : lines.lines[l].values) texts.push_back(cell_text(cell));
    drawn.push_back({{"name", lines.lines[l].name}, {"places", places[l]}, {"texts", texts}});
  }
  picture(lines.title, fmt::format("a line a run through {}", fmt::join(lines.axes, ", ")),
          script_json({{"kind", "parallel"},
                       {"axes", lines.axes},
                       {"colour_axis", lines.colour_axis},
                       {"lines", std::move(drawn)}}),
          numbers_of(lines));
}

void Page::add(const HeatMap& map) {
  body_ += "<div class=\"scroll\"><table class=\"heat\"><caption>" + html_escaped(map.title) +
           "</caption><thead><tr><th></th>";
  for (const std::string& column : map.columns)
    body_ += "<th scope=\"col\"><span>" + html_escaped(column) + "</span></th>";
  body_ += "</tr></thead><tbody>";
  for (size_t r = 0; r < map.rows.size(); ++r) {
    body_ += "<tr><th scope=\"row\">" + html_escaped(map.rows[r]) + "</th>";
    for (const double value : map.values[r]) {
      const double strength =
          std::isfinite(value) ? std::min(1., std::abs(value) / map.extreme) : 0;
      body_ += fmt::format("<td class=\"{}\" style=\"--strength:{:.2f}\">{}</td>",
                           value < 0 ? "below" : "above", strength,
                           std::isfinite(value) ? fmt::format("{:.2f}", value) : std::string("-"));
    }
    body_ += "</tr>";
  }
  body_ += "</tbody></table></div>\n";
}

std::string Page::html() const {
  // The policy has the browser itself refuse whatever would leave the page.
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; "
      "script-src 'unsafe-inline'; img-src data:\">\n"
      "<link rel=\"icon\" "
      "href=\"data:,\">\n<title>{0}</title>\n<style>{2}</style>\n</head>\n<body>\n"
      "<header><h1>{0}</h1><p>{1}</p></header>\n<nav aria-label=\"Contents\"><ol>{3}</ol></nav>\n"
      "<main>\n{4}{5}</main>\n<script>{6}</script>\n<script>{7}</script>\n</body>\n</html>\n",
      html_escaped(title_), html_escaped(subtitle_), page_style(), contents_, body_,
      in_section_ ? "</section>\n" : "", chart_library(), page_script());
}

}  // namespace kt
