#!/usr/bin/env python3
"""Quantiles of a folder in KuaiRec's layout beside the published ones of KuaiRec 2.0, as a Markdown table.

Made the tables of docs/synthetic-data.md: bench/synth_table.py REPLICA (scale 1). Needs polars and numpy; nothing
of the product does.
"""
import sys

import numpy as np
import polars as pl

FOLDER = sys.argv[1].rstrip("/") + "/"
REAL_LENGTH = {"< 4": .61, "4-5": .28, "5-6": .16, "6-7": .09, "7-8": .057, "8-9": .038, "9-10": .032,
               "10-12": .025, "12-15": .019, "20-30": .005, "> 60": .001}


def show(x):
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def table(title, rows):
    print(f"\n### {title}\n\n| | KuaiRec 2.0 | replica | off by |\n|---|---|---|---|")
    for name, real, got in rows:
        off = f"{100 * (got / real - 1):+.1f} %" if real else ""
        print(f"| {name} | {show(real)} | {show(got)} | {off} |")


def matrix(name):
    m = pl.read_csv(FOLDER + name, columns=["user_id", "video_id", "play_duration", "video_duration", "date",
                                            "timestamp", "watch_ratio"])
    return m


def quantiles(title, column, reals):
    x = column.to_numpy()
    return [(f"{title} {p:g} %", real, float(np.quantile(x, p / 100))) for p, real in reals.items()]


def moments(title, column, mean, std, top=None):
    rows = [(f"{title} mean", mean, column.mean()), (f"{title} std", std, column.std())]
    return rows + ([(f"{title} max", top, column.max())] if top else [])


big, small = matrix("big_matrix.csv"), matrix("small_matrix.csv")
ratio = big["watch_ratio"]
events = big.unique(subset=["user_id", "video_id", "play_duration", "video_duration", "timestamp"])
exact = big.height - pl.read_csv(FOLDER + "big_matrix.csv", infer_schema=False).unique().height
pairs = big.select("user_id", "video_id").unique()
per_pair = events.group_by("user_id", "video_id").len()["len"]
per_user = big.group_by("user_id").agg(pl.len(), pl.col("watch_ratio").mean())
per_video = events.group_by("video_id").agg(pl.len(), pl.col("watch_ratio").mean())
both = pairs.join(small.select("user_id", "video_id"), on=["user_id", "video_id"]).height
block = small["user_id"].n_unique() * small["video_id"].n_unique()

table("Counts", [
    ("big rows", 12530806, big.height), ("exact duplicates", 965819, exact),
    ("duplicates on the event fields", 968004, big.height - events.height),
    ("big pairs, % of cells", 13.38, 100 * pairs.height / (big["user_id"].n_unique() * big["video_id"].n_unique())),
    ("most repeats of a pair", 2224, per_pair.max()),
    ("users", 7176, big["user_id"].n_unique()), ("videos", 10728, big["video_id"].n_unique()),
    ("small rows", 4676570, small.height), ("small users", 1411, small["user_id"].n_unique()),
    ("small videos", 3327, small["video_id"].n_unique()), ("block cells missing", 17827, block - small.height),
    ("small rows without time", 181992, small["timestamp"].null_count()),
    ("pairs in both matrices", 0, both),
    ("big rows per user, least", 100, per_user["len"].min()), ("small rows per user, least", 3295,
     small.group_by("user_id").len()["len"].min()),
    ("small rows per video, least", 1315, small.group_by("video_id").len()["len"].min())])
table("watch_ratio, big", moments("ratio", ratio, .944506, 1.674601, 573.457)
      + quantiles("ratio", ratio, {25: .31482, 50: .72347, 75: 1.17764, 99: 4.795})
      + [(f"> {c}, %", real, 100 * (ratio > c).mean()) for c, real in {1: 33.82, 3: 2.81, 5: .94, 10: .27}.items()]
      + moments("<= 5:", ratio.filter(ratio <= 5), .85107, .71853))
ratio = small["watch_ratio"]
table("watch_ratio, small", moments("ratio", ratio, .907070, 1.362324, 571.521)
      + quantiles("ratio", ratio, {25: .4676, 50: .7692, 75: 1.1206, 99: 3.585})
      + [(f"> {c}, %", real, 100 * (ratio > c).mean()) for c, real in {3: 1.54, 5: .49, 10: .14}.items()]
      + [(">= 2, %", 4.62, 100 * (ratio >= 2).mean())]
      + moments("<= 5:", ratio.filter(ratio <= 5), .85539, .59521))
table("play_duration (ms)", moments("big", big["play_duration"], 9027, 15473, 999639)
      + quantiles("big", big["play_duration"], {25: 4218, 50: 7277, 75: 10350})
      + moments("small", small["play_duration"], 8613, 12237)
      + quantiles("small", small["play_duration"],
                  {1: 502, 5: 2009, 10: 3694, 25: 5835, 50: 7589, 75: 9906, 90: 12760, 95: 15791, 99: 31267,
                   99.9: 116025}))
table("video_duration (ms)", moments("big", big["video_duration"], 14622, 19835, 315072)
      + [("big min", 140, big["video_duration"].min())]
      + quantiles("big", big["video_duration"], {25: 7434, 50: 9636, 75: 12179})
      + moments("small", small["video_duration"], 14486, 20467) + [("small min", 3067, small["video_duration"].min())]
      + quantiles("small", small["video_duration"], {25: 7523, 50: 9600, 75: 11934}))
likes = small.group_by("user_id").agg((pl.col("watch_ratio") >= 2).sum())["watch_ratio"]
liked = small.filter(pl.col("watch_ratio") >= 2)["video_id"].n_unique()
table("Per user and per video", moments("big rows per user", per_user["len"], 1746, 992, 16015)
      + quantiles("big rows per user", per_user["len"], {25: 883, 50: 1846, 75: 2461})
      + moments("big events per video", per_video["len"], 1078, 0, 27615)[::2]
      + quantiles("big events per video", per_video["len"], {50: 228})
      + moments("mean ratio per user", per_user["watch_ratio"], .957, .214, 2.36)
      + [("mean ratio per user, least", .13, per_user["watch_ratio"].min())]
      + quantiles("mean ratio per video", per_video["watch_ratio"], {25: .759, 50: .996, 75: 1.350})
      + [("mean ratio per video, least", .05, per_video["watch_ratio"].min()),
         ("mean ratio per video, most", 135.66, per_video["watch_ratio"].max())]
      + [("likes per small user, least", 2, likes.min())]
      + quantiles("likes per small user", likes, {25: 44, 50: 92, 75: 222})
      + [("likes per small user, most", 994, likes.max()), ("small videos with a like", 3272, liked)])
rows = []
for name, real in REAL_LENGTH.items():
    low, high = (0, 4) if name == "< 4" else (60, 1e9) if name == "> 60" else map(float, name.split("-"))
    s = small.filter((pl.col("video_duration") >= low * 1000) & (pl.col("video_duration") < high * 1000))
    rows.append((f"{name} s", real, (s["watch_ratio"] >= 2).mean()))
table("P(ratio >= 2) by video length, small", rows)


def between(x, group):
    """Share of the variance that lies between groups, one-way random effects."""
    _, g = np.unique(group, return_inverse=True)
    n = np.bincount(g)
    mean = np.bincount(g, x) / n
    within = ((x - mean[g]) ** 2).sum() / (len(x) - len(n))
    across = ((n * (mean - x.mean()) ** 2).sum() - (len(n) - 1) * within) / (len(x) - (n ** 2).sum() / len(x))
    return across / (across + within)


log_play = np.log(np.maximum(small["play_duration"].to_numpy(), 100))
table("Variance of log play, small (%)", [
    ("between users", 10, 100 * between(log_play, small["user_id"].to_numpy())),
    ("between videos (real: of an extract)", .5, 100 * between(log_play, small["video_id"].to_numpy()))])
lengths = big.group_by("video_id").agg(pl.col("video_duration").n_unique())["video_duration"]
users = pl.read_csv(FOLDER + "user_features.csv")
daily = pl.read_csv(FOLDER + "item_daily_features.csv", infer_schema_length=None)
keys = daily.group_by("video_id", "date").len()["len"]
tags = pl.read_csv(FOLDER + "item_categories.csv")["feat"].str.count_matches(",") + 1
captions = open(FOLDER + "kuairec_caption_category.csv", encoding="utf-8", newline="").read()
shows = daily["show_cnt"]
table("Side tables and nulls", [
    ("videos with several durations, %", 33.3, 100 * (lengths > 1).mean()),
    ("onehot_feat4 empty", 201, users["onehot_feat4"].null_count()),
    ("onehot_feat12 empty", 77, users["onehot_feat12"].null_count()),
    ("onehot_feat17 empty", 74, users["onehot_feat17"].null_count()),
    ("users full_active", 6092, (users["user_active_degree"] == "full_active").sum()),
    ("follow_user_num median", 33, users["follow_user_num"].median()),
    ("register_days median", 225, users["register_days"].median()),
    ("tags in all", 12693, tags.sum()),
    ("bare carriage returns", 4, captions.count("\r")),
    ("daily rows", 343341, daily.height), ("daily keys", 194155, len(keys)),
    ("daily rows that share a key", 226111, keys.filter(keys > 1).sum()),
    ("daily authors", 8369, daily["author_id"].n_unique()), ("daily music ids", 8495, daily["music_id"].n_unique()),
    ("AD rows", 1153, (daily["video_type"] == "AD").sum()),
    ("video_duration null", 10598, daily["video_duration"].null_count()),
    ("video_tag_name null", 32434, daily["video_tag_name"].null_count()),
    ("collect_cnt null", 69683, daily["collect_cnt"].null_count()),
    ("show_cnt 25 %", 55, shows.quantile(.25)), ("show_cnt 50 %", 1328, shows.quantile(.5)),
    ("show_cnt 75 %", 24190, shows.quantile(.75)), ("show_cnt max", 42.2e6, shows.max()),
    ("social rows", 472, pl.read_csv(FOLDER + "social_network.csv").height)])
content = daily.group_by("video_id").agg(
    pl.col("video_duration").first().fill_null(0),
    *[pl.col(c).mean() for c in ["show_cnt", "play_cnt", "complete_play_cnt", "like_cnt"]])
content = content.join(per_video, on="video_id").with_columns(
    engagement=pl.col("play_cnt") / (pl.col("show_cnt") + 1),
    completion=pl.col("complete_play_cnt") / (pl.col("play_cnt") + 1),
    like=pl.col("like_cnt") / (pl.col("play_cnt") + 1))
target = content["watch_ratio"].to_numpy()
table("Correlation with the per-video mean ratio", [
    (name, real, np.corrcoef(content[column].to_numpy(), target)[0, 1])
    for name, column, real in [("completion_rate", "completion", .07), ("engagement_rate", "engagement", -.14),
                               ("video_duration", "video_duration", -.11), ("like_rate", "like", .008)]])
