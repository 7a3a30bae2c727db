#include "trainer/analysis/kuairec_figures.h"

#include <nlohmann/json.hpp>

namespace kt {
namespace {

using nlohmann::json;

struct Figure {
  const char* what;
  const char* place;  ///< JSON pointer into the numbers
  double kuairec;
};

/// KuaiRec 2.0 (Gao et al., CIKM 2022, arXiv 2202.10842). Source: counted in its CSV files. The training table is the
/// big matrix with its duplicates, which an import drops (7.7 % of its rows), but for cells filled by pairs and rows a
/// video; the test table is the small matrix.
constexpr Figure kFigures[] = {
    {"training: watch_ratio, mean", "/training/label/mean", .944506},
    {"training: watch_ratio, std", "/training/label/std", 1.674601},
    {"training: watch_ratio, 25 %", "/training/label/25%", .31482},
    {"training: watch_ratio, 50 %", "/training/label/50%", .72347},
    {"training: watch_ratio, 75 %", "/training/label/75%", 1.17764},
    {"training: watch_ratio, 99 %", "/training/label/99%", 4.795},
    {"training: watch_ratio up to 5, mean", "/training/label_to_5/mean", .85107},
    {"training: watch_ratio up to 5, std", "/training/label_to_5/std", .71853},
    {"training: share above 1", "/training/thresholds/2/share_above", .3382},
    {"training: share above 3", "/training/thresholds/6/share_above", .0281},
    {"training: share above 5", "/training/thresholds/7/share_above", .0094},
    {"training: share above 10", "/training/thresholds/8/share_above", .0027},
    {"training: cells filled, by pairs", "/training/cells_filled_by_pairs", .1338},
    {"training: play_duration, mean (ms)", "/training/play_duration/mean", 9027},
    {"training: play_duration, std (ms)", "/training/play_duration/std", 15'473},
    {"training: play_duration, 25 % (ms)", "/training/play_duration/25%", 4218},
    {"training: play_duration, 50 % (ms)", "/training/play_duration/50%", 7277},
    {"training: play_duration, 75 % (ms)", "/training/play_duration/75%", 10'350},
    {"training: video_duration, mean (ms)", "/training/video_duration/mean", 14'622},
    {"training: video_duration, std (ms)", "/training/video_duration/std", 19'835},
    {"training: video_duration, 25 % (ms)", "/training/video_duration/25%", 7434},
    {"training: video_duration, 50 % (ms)", "/training/video_duration/50%", 9636},
    {"training: video_duration, 75 % (ms)", "/training/video_duration/75%", 12'179},
    {"training: mean watch_ratio a user, mean", "/training/by_user/mean/mean", .957},
    {"training: mean watch_ratio a user, std", "/training/by_user/mean/std", .214},
    {"training: mean watch_ratio a video, 25 %", "/training/by_video/mean/25%", .759},
    {"training: mean watch_ratio a video, 50 %", "/training/by_video/mean/50%", .996},
    {"training: mean watch_ratio a video, 75 %", "/training/by_video/mean/75%", 1.35},
    {"test: watch_ratio, mean", "/test/label/mean", .90707},
    {"test: watch_ratio, std", "/test/label/std", 1.362324},
    {"test: watch_ratio, 25 %", "/test/label/25%", .4676},
    {"test: watch_ratio, 50 %", "/test/label/50%", .7692},
    {"test: watch_ratio, 75 %", "/test/label/75%", 1.1206},
    {"test: watch_ratio, 99 %", "/test/label/99%", 3.585},
    {"test: watch_ratio up to 5, mean", "/test/label_to_5/mean", .85539},
    {"test: watch_ratio up to 5, std", "/test/label_to_5/std", .59521},
    {"test: share of 2 and more", "/test/share_of_2", .0462},
    {"test: share above 3", "/test/thresholds/6/share_above", .0154},
    {"test: share above 5", "/test/thresholds/7/share_above", .0049},
    {"test: share above 10", "/test/thresholds/8/share_above", .0014},
    {"test: cells filled", "/test/cells_filled_by_pairs", .9962},
    {"test: timestamps missing, share", "/tables/test/missing/timestamp/share", .038916},
    {"test: play_duration, mean (ms)", "/test/play_duration/mean", 8613},
    {"test: play_duration, std (ms)", "/test/play_duration/std", 12'237},
    {"test: play_duration, 1 % (ms)", "/test/play_duration/1%", 502},
    {"test: play_duration, 5 % (ms)", "/test/play_duration/5%", 2009},
    {"test: play_duration, 10 % (ms)", "/test/play_duration/10%", 3694},
    {"test: play_duration, 25 % (ms)", "/test/play_duration/25%", 5835},
    {"test: play_duration, 50 % (ms)", "/test/play_duration/50%", 7589},
    {"test: play_duration, 75 % (ms)", "/test/play_duration/75%", 9906},
    {"test: play_duration, 90 % (ms)", "/test/play_duration/90%", 12'760},
    {"test: play_duration, 95 % (ms)", "/test/play_duration/95%", 15'791},
    {"test: play_duration, 99 % (ms)", "/test/play_duration/99%", 31'267},
    {"test: play_duration, 99.9 % (ms)", "/test/play_duration/99.9%", 116'025},
    {"test: video_duration, mean (ms)", "/test/video_duration/mean", 14'486},
    {"test: video_duration, std (ms)", "/test/video_duration/std", 20'467},
    {"test: video_duration, 25 % (ms)", "/test/video_duration/25%", 7523},
    {"test: video_duration, 50 % (ms)", "/test/video_duration/50%", 9600},
    {"test: video_duration, 75 % (ms)", "/test/video_duration/75%", 11'934},
    {"test: share of 2 and more below 4 s", "/test/lengths/0/share_of_2", .61},
    {"test: share of 2 and more, 4-5 s", "/test/lengths/1/share_of_2", .28},
    {"test: share of 2 and more, 5-6 s", "/test/lengths/2/share_of_2", .16},
    {"test: share of 2 and more, 6-7 s", "/test/lengths/3/share_of_2", .09},
    {"test: share of 2 and more, 7-8 s", "/test/lengths/4/share_of_2", .057},
    {"test: share of 2 and more, 8-9 s", "/test/lengths/5/share_of_2", .038},
    {"test: share of 2 and more, 9-10 s", "/test/lengths/6/share_of_2", .032},
    {"test: share of 2 and more, 10-12 s", "/test/lengths/7/share_of_2", .025},
    {"test: share of 2 and more, 12-15 s", "/test/lengths/8/share_of_2", .019},
    {"test: share of 2 and more, 20-30 s", "/test/lengths/10/share_of_2", .005},
    {"daily: completion_rate with the mean watch_ratio, correlation",
     "/engagement/correlations_with_mean/12/correlation", .07},
    {"daily: engagement_rate with the mean watch_ratio, correlation",
     "/engagement/correlations_with_mean/11/correlation", -.14},
    {"daily: like_rate with the mean watch_ratio, correlation",
     "/engagement/correlations_with_mean/13/correlation", .008},
    {"daily: video_duration with the mean watch_ratio, correlation",
     "/engagement/correlations_with_mean/0/correlation", -.11}};

}  // namespace

json beside_kuairec(const Dataset& dataset, const json& numbers) {
  if (!dataset.synthetic()) return {{"absent", "the data is no synthetic replica"}};
  json figures = json::array();
  for (const Figure& figure : kFigures) {
    const json::json_pointer place(figure.place);
    if (!numbers.contains(place)) continue;  // of a table that this replica has lost
    figures.push_back(
        {{"what", figure.what}, {"kuairec", figure.kuairec}, {"here", numbers.at(place)}});
  }
  return {{"figures", std::move(figures)}};
}

}  // namespace kt
