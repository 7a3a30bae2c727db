#include "io/config/config.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "io/files/json_text.h"
#include "io/tables/numbers.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

template <class E, size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<ValidationKind, 2> kValidationKinds{
    {{ValidationKind::kRandom, "random"}, {ValidationKind::kTemporal, "temporal"}}};
constexpr Names<MissingValue, 2> kMissingValues{
    {{MissingValue::kZero, "zero"}, {MissingValue::kMedian, "median"}}};
constexpr Names<VideoType, 2> kVideoTypes{
    {{VideoType::kAny, "any"}, {VideoType::kNormal, "normal"}}};
constexpr Names<Visibility, 2> kVisibilities{
    {{Visibility::kAny, "any"}, {Visibility::kPublic, "public"}}};
constexpr Names<Repeats, 4> kRepeats{{{Repeats::kKeep, "keep"},
                                      {Repeats::kFirst, "first"},
                                      {Repeats::kSum, "sum"},
                                      {Repeats::kMean, "mean"}}};
constexpr Names<Content, 2> kContents{{{Content::kDaily, "daily"}, {Content::kNone, "none"}}};
constexpr Names<EngineName, 3> kEngines{
    {{EngineName::kAuto, "auto"}, {EngineName::kFused, "fused"}, {EngineName::kTorch, "torch"}}};
constexpr Names<FormName, 3> kForms{
    {{FormName::kAuto, "auto"}, {FormName::kRows, "rows"}, {FormName::kIds, "ids"}}};
constexpr Names<OptimizerName, 3> kOptimizers{{{OptimizerName::kAdam, "adam"},
                                               {OptimizerName::kAdamW, "adamw"},
                                               {OptimizerName::kSgd, "sgd"}}};
constexpr Names<ScheduleName, 3> kSchedules{{{ScheduleName::kConstant, "constant"},
                                             {ScheduleName::kLinear, "linear"},
                                             {ScheduleName::kCosine, "cosine"}}};
constexpr Names<SelectionMetric, 7> kMetrics{{{SelectionMetric::kNone, "none"},
                                              {SelectionMetric::kMse, "mse"},
                                              {SelectionMetric::kMae, "mae"},
                                              {SelectionMetric::kMseClipped, "mse_clipped"},
                                              {SelectionMetric::kMaeClipped, "mae_clipped"},
                                              {SelectionMetric::kGauc, "gauc"},
                                              {SelectionMetric::kXauc, "xauc"}}};
constexpr Names<OnBadStep, 3> kOnBadSteps{
    {{OnBadStep::kStop, "stop"}, {OnBadStep::kSkip, "skip"}, {OnBadStep::kRewind, "rewind"}}};
constexpr Names<Backend, 3> kBackends{
    {{Backend::kAuto, "auto"}, {Backend::kMpi, "mpi"}, {Backend::kNccl, "nccl"}}};
constexpr Names<Simd, 3> kSimds{
    {{Simd::kAuto, "auto"}, {Simd::kAvx2, "avx2"}, {Simd::kAvx512, "avx512"}}};
constexpr Names<Precision, 3> kPrecisions{
    {{Precision::kFp32, "fp32"}, {Precision::kTf32, "tf32"}, {Precision::kBf16, "bf16"}}};
constexpr Names<Reduce, 2> kReduces{{{Reduce::kExact, "exact"}, {Reduce::kFast, "fast"}}};
constexpr Names<EvaluatedCheckpoint, 2> kEvaluatedCheckpoints{
    {{EvaluatedCheckpoint::kLast, "last"}, {EvaluatedCheckpoint::kBest, "best"}}};

constexpr const auto& names(ValidationKind) { return kValidationKinds; }
constexpr const auto& names(MissingValue) { return kMissingValues; }
constexpr const auto& names(VideoType) { return kVideoTypes; }
constexpr const auto& names(Visibility) { return kVisibilities; }
constexpr const auto& names(Repeats) { return kRepeats; }
constexpr const auto& names(Content) { return kContents; }
constexpr const auto& names(EngineName) { return kEngines; }
constexpr const auto& names(FormName) { return kForms; }
constexpr const auto& names(Simd) { return kSimds; }
constexpr const auto& names(OptimizerName) { return kOptimizers; }
constexpr const auto& names(ScheduleName) { return kSchedules; }
constexpr const auto& names(SelectionMetric) { return kMetrics; }
constexpr const auto& names(OnBadStep) { return kOnBadSteps; }
constexpr const auto& names(Backend) { return kBackends; }
constexpr const auto& names(Reduce) { return kReduces; }
constexpr const auto& names(Precision) { return kPrecisions; }
constexpr const auto& names(EvaluatedCheckpoint) { return kEvaluatedCheckpoints; }

template <class E>
concept Enum = std::is_enum_v<E>;

template <Enum E>
std::string_view find_name(E value) {
  for (const auto& [candidate, name] : names(value))
    if (candidate == value) return name;
  KT_CHECK(false, "an enumerator without a name: {}", static_cast<int>(value));
}

std::string join(const std::vector<std::string_view>& words) {
  return fmt::format("{}", fmt::join(words, " or "));
}

// What a key may hold. Each type: what is expected (in words), a reader that says whether the YAML node is
// that, and a writer.

template <class T>
struct Range {
  T low, high;
  bool high_open = false;
  bool or_zero = false;
  bool holds(T x) const {
    return (or_zero && x == 0) || (x >= low && (high_open ? x < high : x <= high));
  }
  std::string text(std::string_view what) const {
    return fmt::format("{}{} >= {} and {} {}", or_zero ? "0, or " : "", what, low,
                       high_open ? "<" : "<=", high);
  }
};
// Bounds of counts: above what any run can want, and so small that what is computed from them is exact. Epochs times
// the steps of one, which are at most the rows, fit 64 bits; so do sums of steps, which doubles hold, too.
constexpr int64_t kMostEpochs = 1'000'000;
constexpr int64_t kMostSteps = 1'000'000'000'000'000;
constexpr int64_t kMostRows = 1'000'000'000;  // of a step; an index is 32 bits
constexpr int64_t kMostSeconds = 100'000'000;
constexpr size_t kMostLists = 100;
constexpr Range<int64_t> whole(int64_t low, int64_t high) { return {.low = low, .high = high}; }
// Of a value that becomes a float: within what a float holds with full precision, so that it neither vanishes nor
// becomes infinite.
constexpr Range<double> of_a_float() { return {.low = 1e-37, .high = 3e38}; }
constexpr Range<double> of_a_float_or_zero() {
  return {.low = 1e-37, .high = 3e38, .or_zero = true};
}
constexpr Range<double> below_one() { return {.low = 0, .high = 1, .high_open = true}; }
// A float below one; the next double below one is a float of one.
constexpr Range<double> decay() { return {.low = 0, .high = 0.9999999}; }

/// A word of these.
struct Word {
  std::vector<std::string_view> allowed;
};
/// Name of a file or folder.
struct Path {
  bool may_be_empty = true;
};
struct Any {};

// yaml-cpp's words for a scalar without quotes and for one in quotes. A node of ours has none; any other tag was
// written, and means to change what the value is.
bool is_plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "?"; }
bool is_quoted(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "!"; }
bool is_tagged(const YAML::Node& node) {
  return !node.IsNull() && node.Tag() != "?" && node.Tag() != "!" && !node.Tag().empty();
}

template <class T>
bool read_number(const YAML::Node& node, const Range<T>& range, T& out) {
  if (!is_plain(node)) return false;
  const std::optional<T> value = number_in<T>(node.Scalar());
  if (!value || !range.holds(*value)) return false;
  out = *value;
  return true;
}

std::string expected(int64_t, const Range<int64_t>& range) { return range.text("a whole number"); }
bool read(const YAML::Node& node, const Range<int64_t>& range, int64_t& out) {
  return read_number(node, range, out);
}
json write(int64_t value) { return value; }

std::string expected(double, const Range<double>& range) { return range.text("a number"); }
bool read(const YAML::Node& node, const Range<double>& range, double& out) {
  return read_number(node, range, out);
}
json write(double value) { return value; }

std::string expected(const std::vector<int64_t>&, const Range<int64_t>& range) {
  return fmt::format("a growing list of at most {} whole numbers {}, as [10, 50, 100]", kMostLists,
                     range.text("each"));
}
bool read(const YAML::Node& node, const Range<int64_t>& range, std::vector<int64_t>& out) {
  if (!node.IsSequence() || node.size() == 0 || node.size() > kMostLists) return false;
  std::vector<int64_t> values;
  for (const YAML::Node& element : node) {
    int64_t value = 0;
    if (!read_number(element, range, value)) return false;
    if (!values.empty() && value <= values.back()) return false;
    values.push_back(value);
  }
  out = std::move(values);
  return true;
}
json write(const std::vector<int64_t>& values) { return values; }

std::string expected(const std::string&, const Word& word) { return join(word.allowed); }
bool read(const YAML::Node& node, const Word& word, std::string& out) {
  if (!node.IsScalar() ||
      std::find(word.allowed.begin(), word.allowed.end(), node.Scalar()) == word.allowed.end())
    return false;
  out = node.Scalar();
  return true;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string expected(const std::string&, const Path& path) {
  return fmt::format(
      "text{}, without control characters, nor ~ for a home folder, which only a shell knows",
      path.may_be_empty ? " (\"\" for none)" : "");
}
bool read(const YAML::Node& node, const Path& path, std::string& out) {
  if (!node.IsScalar()) return false;
  const std::string& value = node.Scalar();
  if (value.empty() && !path.may_be_empty) return false;
  if (value == "~" || value.starts_with("~/") ||
      std::any_of(value.begin(), value.end(), is_control))
    return false;
  out = value;
  return true;
}
json write(const std::string& value) { return value; }

std::string expected(Date, Any) { return "a day as 2020-08-01, or \"\" for none"; }
bool read(const YAML::Node& node, Any, Date& out) {
  if (!node.IsScalar()) return false;
  const std::string& text = node.Scalar();
  if (text.empty()) {
    out = {};
    return true;
  }
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  for (const size_t i : {0, 1, 2, 3, 5, 6, 8, 9})
    if (text[i] < '0' || text[i] > '9') return false;
  const int year = std::stoi(text.substr(0, 4));
  const int month = std::stoi(text.substr(5, 2));
  const int day = std::stoi(text.substr(8, 2));
  const std::chrono::year_month_day date{std::chrono::year{year},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || year == 0) return false;
  out.yyyymmdd = year * 10000 + month * 100 + day;
  return true;
}
json write(Date date) {
  if (date.yyyymmdd == 0) return "";
  return fmt::format("{:04}-{:02}-{:02}", date.yyyymmdd / 10000, date.yyyymmdd / 100 % 100,
                     date.yyyymmdd % 100);
}

std::string expected(bool, Any) { return "true or false"; }
bool read(const YAML::Node& node, Any, bool& out) {
  if (!is_plain(node) || (node.Scalar() != "true" && node.Scalar() != "false")) return false;
  out = node.Scalar() == "true";
  return true;
}
json write(bool value) { return value; }

template <Enum E>
std::string expected(E, Any) {
  std::vector<std::string_view> all;
  for (const auto& [value, name] : names(E{})) all.push_back(name);
  return join(all);
}
template <Enum E>
bool read(const YAML::Node& node, Any, E& out) {
  if (!node.IsScalar()) return false;
  for (const auto& [value, name] : names(E{}))
    if (name == node.Scalar()) {
      out = value;
      return true;
    }
  return false;
}
template <Enum E>
json write(E value) {
  return find_name(value);
}

/// One key, bound to its member of one Config.
struct Key {
  std::string path;
  std::string expected;
  std::string use;
  std::function<bool(const YAML::Node&)> read;
  std::function<json()> write;
};

/// The one list of keys.
std::vector<Key> keys_of(Config& config) {
  std::vector<Key> keys;
  const auto add = [&keys](std::string path, auto& value, auto allowed, std::string use) {
    keys.push_back(
        {std::move(path), expected(value, allowed), std::move(use),
         [&value, allowed](const YAML::Node& node) { return read(node, allowed, value); },
         [&value] { return write(value); }});
  };

  auto& data = config.data;
  add("data.path", data.path, Path{}, "the data set; none: ./kuaitrain-data, made when absent");
  add("data.validation.kind", data.validation.kind, Any{},
      "rows held out: a random part, or the last in time");
  add("data.validation.fraction", data.validation.fraction, below_one(),
      "share of the training rows held out; 0: none");
  add("data.target.clip", data.target.clip, of_a_float_or_zero(),
      "labels that are trained on are cut to this; 0: off");
  add("data.features.until", data.features.until, Any{}, "daily features up to this day alone");
  add("data.features.missing", data.features.missing, Any{}, "what a missing feature becomes");
  add("data.filter.positive", data.filter.positive, Any{},
      "leaves out training rows whose label is 0 or less; no filter touches the test table");
  add("data.filter.max_duration_ms", data.filter.max_duration_ms,
      whole(0, std::numeric_limits<int32_t>::max()),
      "leaves out training rows of longer videos (video_duration of the row); 0: off");
  add("data.filter.video_type", data.filter.video_type, Any{},
      "normal: leaves out training rows of videos whose first daily row has another video_type "
      "than NORMAL, or that have none");
  add("data.filter.visibility", data.filter.visibility, Any{},
      "public: leaves out training rows of videos whose first daily row has another "
      "visible_status than public, or that have none");
  add("data.filter.max_label", data.filter.max_label, of_a_float_or_zero(),
      "leaves out training rows whose label is above this, after data.repeats; 0: off");
  add("data.repeats", data.repeats, Any{},
      "training rows of one user and video that the other filters leave: all of them, or one in "
      "place of the first, with its label or the sum or mean of all; in a temporal split it has "
      "the time of the first");

  auto& model = config.model;
  add("model.name", model.name, Word{{"ncf"}}, "the model");
  add("model.content", model.content, Any{}, "content features: of the daily table, or none");

  add("model.engine", model.engine, Any{},
      "who computes it: fused on CPUs, torch (libtorch) on GPUs; auto: as it runs");
  add("model.form", model.form, Any{},
      "of the fused engine: what depends on a user or a video alone is computed for every row, or "
      "once "
      "for each of a step's ids; auto: ids from a global batch of 512");

  auto& train = config.train;
  add("train.epochs", train.epochs, whole(1, kMostEpochs), "passes over the training rows");
  add("train.max_steps", train.max_steps, whole(0, kMostSteps),
      "ends the training at this step; 0: off");
  add("train.seed", train.seed, whole(0, std::numeric_limits<int64_t>::max()),
      "of every random draw");
  add("train.global_batch", train.global_batch, whole(1, kMostRows),
      "rows of a step over all ranks, whose number never changes it");
  add("train.weight_decay", train.weight_decay, of_a_float_or_zero(),
      "adamw: decoupled; adam, sgd: added to the gradient");
  add("train.clip_norm", train.clip_norm, of_a_float_or_zero(),
      "largest norm of the whole gradient; 0: off");
  add("train.optimizer.name", train.optimizer.name, Any{}, "the optimizer");
  add("train.optimizer.lr", train.optimizer.lr, of_a_float(), "learning rate");
  add("train.optimizer.beta1", train.optimizer.beta1, decay(), "adam, adamw: first moment");
  add("train.optimizer.beta2", train.optimizer.beta2, decay(), "adam, adamw: second moment");
  add("train.optimizer.epsilon", train.optimizer.epsilon, of_a_float(),
      "adam, adamw: added to the root of the second moment");
  add("train.optimizer.momentum", train.optimizer.momentum, decay(), "sgd alone");
  add("train.schedule.name", train.schedule.name, Any{}, "learning rate after the warm-up");
  add("train.schedule.warmup_steps", train.schedule.warmup_steps, whole(0, kMostSteps),
      "steps from lr / warmup_steps up to lr");
  add("train.schedule.steps", train.schedule.steps, whole(0, kMostSteps),
      "length of linear and cosine, warm-up included; 0: as long as the run, which may then not "
      "grow");
  add("train.early_stop.metric", train.early_stop.metric, Any{},
      "validation metric that must improve");
  add("train.early_stop.patience", train.early_stop.patience, whole(1, kMostEpochs),
      "epochs without improvement before the stop");
  add("train.on_bad_step", train.on_bad_step, Any{},
      "at a loss or gradient that is not finite: end, leave the step out, or go back to the last "
      "checkpoint and leave it out");

  auto& parallel = config.parallel;
  add("parallel.backend", parallel.backend, Any{},
      "mpi: on CPUs; nccl: a GPU a rank; auto: nccl where every rank has one");
  add("parallel.reduce", parallel.reduce, Any{},
      "exact: the same bits on any number of ranks; fast: the backend's own sum");
  add("parallel.simd", parallel.simd, Any{},
      "vector instructions of the fused engine; auto: the widest this CPU has; the same bits on "
      "all");
  add("parallel.precision", parallel.precision, Any{},
      "of products on GPUs: fp32, or with reduce: fast tf32 or bf16; weights are fp32 always");
  add("parallel.threads", parallel.threads, whole(1, 1024), "threads of a rank");
  add("parallel.timeout_s", parallel.timeout_s, whole(1, kMostSeconds),
      "seconds of silence before a run is given up");

  auto& evaluate = config.evaluate;
  add("evaluate.every", evaluate.every, whole(0, kMostEpochs),
      "epochs between evaluations; 0: at the end");
  add("evaluate.k", evaluate.k, whole(1, kMostRows), "lengths of the lists of the ranking metrics");
  add("evaluate.checkpoint", evaluate.checkpoint, Any{}, "which weights the end evaluates");

  auto& checkpoint = config.checkpoint;
  add("checkpoint.every_steps", checkpoint.every_steps, whole(0, kMostSteps), "0: at epochs only");
  add("checkpoint.every_seconds", checkpoint.every_seconds, whole(0, kMostSeconds),
      "0: never by time");
  add("checkpoint.keep", checkpoint.keep, whole(2, kMostEpochs),
      "the newest so many are kept, and the best one");
  add("checkpoint.best", checkpoint.best, Any{}, "validation metric that decides the best one");
  add("checkpoint.resume", checkpoint.resume, Path{.may_be_empty = false},
      "auto: continue what run.dir holds; never: refuse a run.dir that holds checkpoints; a path: "
      "continue that checkpoint");

  add("log.every_steps", config.log.every_steps, whole(1, kMostSteps), "steps between lines");
  add("run.dir", config.run.dir, Path{},
      "folder of the run; none: runs/<name of the configuration>");
  add("run.max_seconds", config.run.max_seconds, whole(0, kMostSeconds),
      "saves and ends the run (exit 85) after this time; 0: off");
  return keys;
}

bool starts_with_section(const std::string& path, const std::string& section) {
  return path.size() > section.size() && path.starts_with(section) && path[section.size()] == '.';
}

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 == 0
}

std::string nearest_key(const std::vector<Key>& keys, std::string_view unknown) {
  // Of a longer one the beginning says as much, and all of it would take time by its length.
  constexpr size_t kLongest = 64;
  unknown = unknown.substr(0, kLongest);
  std::string best;
  int64_t best_distance = std::numeric_limits<int64_t>::max();
  for (const Key& key : keys) {
    // The right word in the wrong section counts as one slip.
    const int64_t distance =
        std::min(edit_distance(unknown, key.path),
                 2 * edit_distance(last_part(unknown), last_part(key.path)) + 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = key.path;
    }
  }
  return best;
}

/// For messages: what cannot be printed is escaped, and of a long text only the beginning is shown.
std::string shown(std::string_view text) {
  constexpr size_t kMost = 200;
  std::string cut(text.substr(0, kMost));
  const std::string escaped = json(cut).dump(-1, ' ', false, json::error_handler_t::replace);
  if (escaped != '"' + cut + '"' && std::any_of(cut.begin(), cut.end(), [](char c) {
        return is_control(c) || static_cast<unsigned char>(c) >= 0x80;
      }))
    cut = escaped;
  return text.size() > kMost ? cut + "..." : cut;
}

std::string got(const YAML::Node& node) {
  if (node.IsMap()) return "a section";
  if (node.IsNull()) return "nothing";
  std::string text;
  if (node.IsSequence()) {
    std::vector<std::string> elements;
    for (const YAML::Node& element : node)
      elements.push_back(element.IsScalar() ? element.Scalar() : "...");
    text = shown(fmt::format("[{}]", fmt::join(elements, ", ")));
  } else {
    text = shown(node.Scalar());
  }
  return fmt::format("{}{}{}", text, is_quoted(node) ? " in quotes" : "",
                     is_tagged(node) ? " with the tag " + shown(node.Tag()) : "");
}

/// Why a text is not read. Line 0 is its first.
struct Refusal {
  int line;
  std::string message;
};

/// Sees to it that a text is one YAML document. yaml-cpp 0.7 reads what belongs to no document, as a comma before
/// any bracket, as empty documents without end, so it is never asked for more than the second.
class OneDocument final : public YAML::EventHandler {
 public:
  static void check(const std::string& text) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    OneDocument handler;
    if (parser.HandleNextDocument(handler)) parser.HandleNextDocument(handler);
  }

 private:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      throw Refusal{mark.line,
                    "got a second document, or text that belongs to no key, expected one document; "
                    "keep one of them"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  int documents_ = 0;
};

bool is_utf8(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::ignore).size() ==
         json(text).dump(-1, ' ', false, json::error_handler_t::replace).size();
}

// Of a file and of a value of the command line: the time and memory a parser takes are bounded by it.
constexpr size_t kMostFileBytes = 64 << 10;
constexpr size_t kMostValueBytes = 8 << 10;

/// Throws: Refusal, YAML::Exception.
YAML::Node parse(const std::string& text, size_t most_bytes, std::string_view allowed_controls) {
  if (text.size() > most_bytes)
    throw Refusal{0, fmt::format("got more than the {} bytes that are read, expected a "
                                 "configuration; check that it is one",
                                 most_bytes)};
  int line = 0;
  std::string of_line;
  std::istringstream lines(text);
  for (; std::getline(lines, of_line); ++line) {
    const bool controls = std::any_of(of_line.begin(), of_line.end(), [&](char c) {
      return is_control(c) && allowed_controls.find(c) == allowed_controls.npos;
    });
    if (controls || !is_utf8(of_line))
      throw Refusal{line, fmt::format("got {}, expected UTF-8 text without control characters; "
                                      "write it anew",
                                      shown(of_line))};
  }
  OneDocument::check(text);
  return YAML::Load(text);
}

/// Whether `node` is all of `text`: not what is left of it without a comment, or blanks at its ends.
bool is_whole(const YAML::Node& node, const std::string& text) {
  const char first = text.front(), last = text.back();
  if (is_plain(node)) return node.Scalar() == text;
  if (is_quoted(node)) return text.size() > 1 && first == last && (first == '"' || first == '\'');
  if (node.IsNull()) return text == "~" || text == "null" || text == "Null" || text == "NULL";
  if (node.IsSequence()) return first == '[' && last == ']';
  return true;
}

class Reader {
 public:
  explicit Reader(ConfigReading& reading) : reading_(reading), keys_(keys_of(reading.config)) {}

  void read_file(const std::string& text, const std::string& name) {
    file_ = name;
    try {
      const YAML::Node document = parse(text, kMostFileBytes, "\t\r");
      if (document.IsNull()) return;
      if (!document.IsMap()) {
        fault(
            place(document.Mark()),
            fmt::format("got {}, expected sections of keys, as 'train:' and below it '  epochs: 5'",
                        got(document)));
        return;
      }
      read_section("", document);
    } catch (const Refusal& refusal) {
      fault(fmt::format("{}:{}", file_, refusal.line + 1), refusal.message);
    } catch (const YAML::Exception& error) {
      fault(place(error.mark),
            fmt::format("got text that is no YAML ({}), expected 'key: value' lines; check the "
                        "indentation, quotes and brackets there",
                        error.msg));
    }
  }

  void read_override(const std::string& argument) {
    const std::string at = "command line: " + shown(argument);
    const size_t equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
      const bool is_file = argument.ends_with(".yaml") || argument.ends_with(".yml");
      fault(at, fmt::format("got no 'key=value', expected as train.epochs=5; {}",
                            is_file ? "a configuration is named by --config " + shown(argument)
                                    : "add '=' and a value"));
      return;
    }
    const std::string path = argument.substr(0, equals);
    const std::string value = argument.substr(equals + 1);
    const Key* key = find(path);
    if (key == nullptr) {
      if (is_section(path))
        fault(at, fmt::format("{} is a section, expected a key of it; name one, as {}", path,
                              first_key_of(path)));
      else
        fault(at, unknown_key(path));
      return;
    }
    try {
      if (value.empty()) return set(*key, at, YAML::Node(std::string()));
      const YAML::Node node = parse(value, kMostValueBytes, "");
      if (!is_whole(node, value))
        fault(at, fmt::format("{}: got a value that YAML reads as {}, expected {}; put it in "
                              "quotes that reach the program, as '{}=\"...\"'",
                              path, got(node), key->expected, path));
      else
        set(*key, at, node);
    } catch (const Refusal& refusal) {
      fault(at, fmt::format("{}: {}", path, refusal.message));
    } catch (const YAML::Exception& error) {
      fault(at, fmt::format("got a value that is no YAML ({}), expected {}; put it in quotes",
                            error.msg, key->expected));
    }
  }

  void check_contradictions() {
    const Config& c = reading_.config;
    const auto& schedule = c.train.schedule;
    const auto& optimizer = c.train.optimizer;
    const OptimizerOptions defaults;
    if (schedule.steps > 0 && schedule.warmup_steps > schedule.steps)
      contradiction({"train.schedule.warmup_steps", "train.schedule.steps"},
                    "at most as many warm-up steps as the schedule has; lower the first or raise "
                    "the second");
    if (schedule.steps > 0 && schedule.name == ScheduleName::kConstant)
      contradiction({"train.schedule.steps", "train.schedule.name"},
                    "a length only for linear or cosine; set one of them, or steps to 0");
    if (optimizer.momentum > 0 && optimizer.name != OptimizerName::kSgd)
      contradiction({"train.optimizer.momentum", "train.optimizer.name"},
                    "momentum only with sgd; set momentum to 0 or the name to sgd");
    if (optimizer.name == OptimizerName::kSgd) {
      const std::pair<const char*, bool> moments[] = {
          {"train.optimizer.beta1", optimizer.beta1 != defaults.beta1},
          {"train.optimizer.beta2", optimizer.beta2 != defaults.beta2},
          {"train.optimizer.epsilon", optimizer.epsilon != defaults.epsilon}};
      for (const auto& [path, changed] : moments)
        if (changed)
          contradiction({path, "train.optimizer.name"},
                        "that key only with adam or adamw; leave it out or change the name");
    }
    if (c.data.validation.fraction == 0) {
      if (c.train.early_stop.metric != SelectionMetric::kNone)
        contradiction({"train.early_stop.metric", "data.validation.fraction"},
                      "validation rows to measure it on; raise the fraction or set the metric to "
                      "none");
      if (c.checkpoint.best != SelectionMetric::kNone)
        contradiction({"checkpoint.best", "data.validation.fraction"},
                      "validation rows to measure it on; raise the fraction or set checkpoint.best "
                      "to none");
    }
    if (c.parallel.precision != Precision::kFp32 && c.parallel.reduce == Reduce::kExact)
      contradiction({"parallel.precision", "parallel.reduce"},
                    "exact bits only with fp32; set parallel.precision to fp32, or "
                    "parallel.reduce to fast");
    if (c.parallel.precision != Precision::kFp32 && c.parallel.backend == Backend::kMpi)
      contradiction({"parallel.precision", "parallel.backend"},
                    "reduced precision only on GPUs; set parallel.precision to fp32, or "
                    "parallel.backend to nccl");
    if (c.model.engine == EngineName::kTorch && c.model.form == FormName::kIds)
      contradiction(
          {"model.engine", "model.form"},
          "ids only with the fused engine; set model.engine to fused, or model.form to rows");
    if (c.model.engine == EngineName::kFused && c.parallel.backend == Backend::kNccl)
      contradiction(
          {"model.engine", "parallel.backend"},
          "the fused engine only on CPUs; set model.engine to torch, or parallel.backend to "
          "mpi");
    if (c.evaluate.checkpoint == EvaluatedCheckpoint::kBest &&
        c.checkpoint.best == SelectionMetric::kNone)
      contradiction({"evaluate.checkpoint", "checkpoint.best"},
                    "a metric that decides the best one; set checkpoint.best to one, or "
                    "evaluate.checkpoint to last");
  }

 private:
  void fault(const std::string& at, const std::string& message) {
    reading_.faults.push_back(at + ": " + message);
  }

  std::string place(const YAML::Mark& mark) const {
    return fmt::format("{}:{}", file_, mark.is_null() ? 1 : mark.line + 1);
  }

  const Key* find(const std::string& path) const {
    for (const Key& key : keys_)
      if (key.path == path) return &key;
    return nullptr;
  }

  bool is_section(const std::string& path) const { return !first_key_of(path).empty(); }

  std::string first_key_of(const std::string& section) const {
    for (const Key& key : keys_)
      if (starts_with_section(key.path, section)) return key.path;
    return {};
  }

  std::string unknown_key(const std::string& path) const {
    return fmt::format(
        "got the unknown key {}, expected a known one; the nearest is {} (kuaitrain validate "
        "--help lists all)",
        shown(path), nearest_key(keys_, path));
  }

  void read_section(const std::string& section, const YAML::Node& map) {
    for (const auto& entry : map) {
      const YAML::Node& name = entry.first;
      const YAML::Node& value = entry.second;
      const std::string at = place(name.Mark());
      if (!name.IsScalar()) {
        fault(at, fmt::format("got {} for a key, expected its name", got(name)));
        continue;
      }
      const std::string path = section.empty() ? name.Scalar() : section + "." + name.Scalar();
      const auto [seen, is_new] = first_line_.emplace(path, name.Mark().line + 1);
      if (!is_new) {
        fault(at, fmt::format("{}: got it a second time, expected once; the first is in line {}",
                              path, seen->second));
        continue;
      }
      if (const Key* key = find(path)) {
        set(*key, at, value);
      } else if (!is_section(path)) {
        fault(at, unknown_key(path));
      } else if (value.IsMap()) {
        read_section(path, value);
      } else if (!value.IsNull()) {  // a section whose keys are all commented out
        fault(at, fmt::format("{}: got {}, expected a section; write its keys below it, as {}",
                              path, got(value), first_key_of(path)));
      }
    }
  }

  void set(const Key& key, const std::string& at, const YAML::Node& value) {
    places_[key.path] = at;
    if (!is_tagged(value) && key.read(value)) return;
    fault(at, fmt::format("{}: got {}, expected {}", key.path, got(value), key.expected));
  }

  /// `paths`: the keys that cannot stand together; the place is the one given last.
  void contradiction(const std::vector<std::string>& paths, const std::string& wanted) {
    std::string at = file_;
    std::vector<std::string> settings;
    for (const std::string& path : paths) {
      settings.push_back(fmt::format("{}={}", path, text_of(find(path)->write())));
      const auto given = places_.find(path);
      if (given != places_.end() && (at == file_ || given->second.starts_with("command line")))
        at = given->second;
    }
    fault(at,
          fmt::format("{}: got {}, expected {}", paths[0], fmt::join(settings, " with "), wanted));
  }

  static std::string text_of(const json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  }

  ConfigReading& reading_;
  std::vector<Key> keys_;
  std::string file_;
  std::map<std::string, int>
      first_line_;  // of every key and section of the file, however it is spelt
  std::map<std::string, std::string> places_;
};

/// A value as YAML. Numbers: the shortest text that reads back to the same value.
std::string yaml_value(const json& value) {
  if (value.is_string()) {
    YAML::Emitter emitter;
    emitter << value.get<std::string>();
    return emitter.c_str();
  }
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (value.is_array())
    return fmt::format("[{}]", fmt::join(value.get<std::vector<int64_t>>(), ", "));
  return value.dump();
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

}  // namespace

std::string_view name_of(ValidationKind value) { return find_name(value); }
std::string_view name_of(MissingValue value) { return find_name(value); }
std::string_view name_of(VideoType value) { return find_name(value); }
std::string_view name_of(Visibility value) { return find_name(value); }
std::string_view name_of(Repeats value) { return find_name(value); }
std::string_view name_of(Content value) { return find_name(value); }
std::string_view name_of(EngineName value) { return find_name(value); }
std::string_view name_of(FormName value) { return find_name(value); }
std::string_view name_of(Simd value) { return find_name(value); }
std::string_view name_of(OptimizerName value) { return find_name(value); }
std::string_view name_of(ScheduleName value) { return find_name(value); }
std::string_view name_of(SelectionMetric value) { return find_name(value); }
std::string_view name_of(OnBadStep value) { return find_name(value); }
std::string_view name_of(Backend value) { return find_name(value); }
std::string_view name_of(Reduce value) { return find_name(value); }
std::string_view name_of(Precision value) { return find_name(value); }
std::string_view name_of(EvaluatedCheckpoint value) { return find_name(value); }

fs::path default_config_path() {
  const fs::path relative = fs::path("configs") / "ncf.yaml";
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  // The program lies in build/<preset> of the tree, or wherever its folder was copied to.
  fs::path folder = program.parent_path();
  for (int level = 0; level < 3 && !folder.empty(); ++level, folder = folder.parent_path())
    if (fs::is_regular_file(folder / relative, ignored)) return folder / relative;
  const fs::path source = fs::path(KT_SOURCE_DIR) / relative;
  if (fs::is_regular_file(source, ignored)) return source;
  user_error(
      "{}: got no such file beside {} nor in the folders above it, expected the default "
      "configuration; name one with --config",
      relative.string(), program.string());
}

ConfigReading read_config(const std::string& text, const fs::path& name,
                          const std::vector<std::string>& overrides) {
  ConfigReading reading;
  Reader reader(reading);
  reader.read_file(text, name.string());
  for (const std::string& argument : overrides) reader.read_override(argument);
  if (reading.faults.empty()) reader.check_contradictions();
  if (reading.config.run.dir.empty())
    reading.config.run.dir = (fs::path("runs") / name.stem()).string();
  return reading;
}

ConfigReading read_config_file(const fs::path& file, const std::vector<std::string>& overrides) {
  const fs::path path = file.empty() ? default_config_path() : file;
  std::ifstream stream(path, std::ios::binary);
  std::string text(kMostFileBytes + 1, '\0');
  const bool readable = stream && !fs::is_directory(path);
  if (readable) stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!readable || stream.bad()) {
    ConfigReading reading;
    reading.faults.push_back(
        fmt::format("{}: got no readable file, expected a configuration; check the path (the "
                    "program's own are in configs/)",
                    path.string()));
    return reading;
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  return read_config(text, path, overrides);
}

Config load_config(const fs::path& file, const std::vector<std::string>& overrides) {
  ConfigReading reading = read_config_file(file, overrides);
  if (!reading.faults.empty()) throw UserError(fmt::format("{}", fmt::join(reading.faults, "\n")));
  return std::move(reading.config);
}

std::string to_yaml(const Config& config) {
  Config copy = config;
  std::string out;
  std::vector<std::string> open;  // the sections the last line was in
  for (const Key& key : keys_of(copy)) {
    const std::vector<std::string> parts = split(key.path);
    size_t depth = 0;
    while (depth < open.size() && depth + 1 < parts.size() && open[depth] == parts[depth]) ++depth;
    open.resize(depth);
    for (; depth + 1 < parts.size(); ++depth) {
      out += fmt::format("{}{}:\n", std::string(2 * depth, ' '), parts[depth]);
      open.push_back(parts[depth]);
    }
    out += fmt::format("{}{}: {}\n", std::string(2 * depth, ' '), parts.back(),
                       yaml_value(key.write()));
  }
  return out;
}

json to_json(const Config& config) {
  Config copy = config;
  json out = json::object();
  for (const Key& key : keys_of(copy)) {
    json* node = &out;
    for (const std::string& part : split(key.path)) node = &(*node)[part];
    *node = key.write();
  }
  return out;
}

std::string describe_keys() {
  Config defaults;
  std::string out;
  for (const Key& key : keys_of(defaults))
    out += fmt::format("  {}: {}\n      {}; {}\n", key.path, yaml_value(key.write()), key.expected,
                       key.use);
  return out;
}

std::vector<std::pair<std::string, std::string>> settings_of_all_ranks(const Config& config) {
  std::error_code ignored;
  const fs::path here = fs::current_path(ignored);
  Config copy = config;
  copy.run.dir = (here / config.run.dir).lexically_normal().string();
  const std::string& resume = config.checkpoint.resume;
  if (resume != "auto" && resume != "never")
    copy.checkpoint.resume = (here / resume).lexically_normal().string();
  std::vector<std::pair<std::string, std::string>> settings;
  for (const Key& key : keys_of(copy))
    if (key.path != "parallel.threads" && key.path != "parallel.simd" &&
        !starts_with_section(key.path, "log"))
      settings.emplace_back(key.path, yaml_value(key.write()));
  return settings;
}

/// Decides where a run ends, as `train.epochs` does. Runs of before have it in their identity.
constexpr const char* kPatience = "train.early_stop.patience";

json identity(const Config& config, const std::string& dataset_hash) {
  Config copy = config;
  const bool may_grow =
      config.train.schedule.name == ScheduleName::kConstant || config.train.schedule.steps > 0;
  json out = {{"dataset", dataset_hash}};
  for (const Key& key : keys_of(copy)) {
    if (key.path == "data.path") continue;
    if (may_grow && (key.path == "train.epochs" || key.path == "train.max_steps")) continue;
    if (key.path == kPatience) continue;
    if (starts_with_section(key.path, "data") || starts_with_section(key.path, "model") ||
        starts_with_section(key.path, "train") || key.path == "parallel.reduce" ||
        key.path == "parallel.precision")
      out[key.path] = key.write();
  }
  return out;
}

std::vector<std::string> identity_differences(const json& stored, const json& current) {
  std::map<std::string, std::pair<std::string, std::string>> both;
  for (const auto& [key, value] : stored.items()) both[key] = {to_text(value), "absent"};
  for (const auto& [key, value] : current.items()) {
    const auto [entry, is_new] = both.emplace(key, std::pair{"absent", ""});
    entry->second.second = to_text(value);
  }
  std::vector<std::string> lines;
  for (const auto& [key, values] : both)
    if (values.first != values.second && key != kPatience)
      lines.push_back(fmt::format("{}: stored {}, now {}", key, values.first, values.second));
  return lines;
}

}  // namespace kt
