#!/usr/bin/env python3
"""Computes with pandas, from the CSV files of the official layout, what `kuaitrain analyze DATASET --json` says, and
compares every number: whole numbers and texts exactly, others to 1e-9.

  analysis.py SOURCE NUMBERS.json

Prints how many numbers are equal, section by section; ends with 1 and the first differences where some are not. Labels are
those of the data set: single precision.
"""
import json
import math
import os
import sys

import numpy as np
import pandas as pd

THRESHOLDS = [.5, .8, 1, 1.2, 1.5, 2, 3, 5, 10]
ROW_QUANTILES = [.01, .05, .1, .25, .5, .75, .9, .95, .99, .999]
LENGTHS = [4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 60]  # seconds
FEATURES = ["video_duration", "show_cnt", "play_cnt", "play_duration", "play_progress", "complete_play_cnt",
            "valid_play_cnt", "long_time_play_cnt", "like_cnt", "comment_cnt", "share_cnt", "engagement_rate",
            "completion_rate", "like_rate", "avg_watch_ratio"]
COMPONENTS = ["engagement_rate", "completion_rate", "like_rate", "avg_watch_ratio", "video_duration"]
USER_COLUMNS = ["user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
                "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range"]
CATEGORY_IDS = ["first_level_category_id", "second_level_category_id", "third_level_category_id"]


def number(x):
    return None if x is None or not math.isfinite(x) else float(x)


def share(part, whole):
    return None if whole == 0 else part / whole


def describe(values, quantiles=(.25, .5, .75)):
    values = pd.Series(values, dtype="float64").dropna()
    out = {"count": len(values), "mean": number(values.mean()), "std": number(values.std()),
           "min": number(values.min()), "max": number(values.max())}
    for q in quantiles:
        out[f"{100 * q:g}%"] = number(values.quantile(q))
    return out


def bins(values, start, width, count):
    """Of equal width; the last has what lies on its upper end."""
    values = np.asarray(values, "float64")
    above = values > start + count * width
    place = np.clip(np.floor((values[~above] - start) / width), 0, max(count - 1, 0)).astype(int)
    return {"from": start, "width": width, "counts": np.bincount(place, minlength=count).tolist(), "above": int(above.sum())}


def histogram_of_counts(values):
    if len(values) == 0:
        return {"from": 0, "width": 1, "counts": [], "above": 0}
    start, end = int(min(values)), math.ceil(np.quantile(values, .99))
    width = max(1, -(-(end - start) // 40))
    return bins(values, start, width, max(1, (end - start) // width + 1))


def histogram_of(values):
    values = pd.Series(values).dropna()
    if values.empty:
        return {"from": 0, "width": 1, "counts": [], "above": 0}
    start, end = values.min(), values.quantile(.99)
    return bins(values, start, (end - start) / 40 if end > start else 1, 40 if end > start else 1)


def correlation(x, y):
    both = pd.DataFrame({"x": np.asarray(x, float), "y": np.asarray(y, float)}).dropna()
    if len(both) < 2 or both.x.nunique() == 1 or both.y.nunique() == 1:
        return None
    return number(np.corrcoef(both.x, both.y)[0, 1])


def thinned(n, most=1000):
    return list(range(n)) if n <= most else [i * (n - 1) // (most - 1) for i in range(most)]


def missing(column):
    return {"count": int(column.isna().sum()), "share": share(int(column.isna().sum()), len(column))}


def texts(column):
    known = column.dropna()
    counts = sorted(known.value_counts().items(), key=lambda pair: (-pair[1], pair[0].encode()))
    return {"count": len(known), "unique": len(counts), "top": counts[0][0] if counts else None,
            "top_rows": int(counts[0][1]) if counts else None}


def cell(x):
    if isinstance(x, str):
        return x
    return None if pd.isna(x) else int(x) if float(x).is_integer() else float(x)


def head(frame, texts_of_columns=()):
    rows = [[x if isinstance(x, str) else "" if pd.isna(x) and name in texts_of_columns else cell(x)
             for name, x in zip(frame.columns, row)] for row in frame.head(5).itertuples(index=False)]
    return {"columns": list(frame.columns), "rows": rows}


# --- the files

FOLDER = sys.argv[1]
TEXTS = {"user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
         "register_days_range", "video_type", "upload_dt", "upload_type", "visible_status", "video_tag_name",
         "manual_cover_text", "caption", "topic_tag", "first_level_category_name", "second_level_category_name",
         "third_level_category_name", "feat", "friend_list"}


def table(name):
    path = os.path.join(FOLDER, name)
    if not os.path.exists(path):
        return None
    # Only an empty cell is missing, whatever a text looks like.
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={name: str for name in TEXTS}, lineterminator="\n",
                       float_precision="round_trip")


def interactions(name):
    path = os.path.join(FOLDER, name)
    if not os.path.exists(path):
        return None
    rows = pd.read_csv(path, float_precision="round_trip")
    rows["label"] = rows["watch_ratio"].astype("float32").astype("float64")
    return rows


big, small = interactions("big_matrix.csv"), interactions("small_matrix.csv")
rows_read = len(big)
event = ["user_id", "video_id", "play_duration", "video_duration", "timestamp"]
big = big[~(big.duplicated(event) & big["timestamp"].notna())]
if small is not None:
    small = small.sort_values(["user_id", "video_id"], kind="stable")
users, daily = table("user_features.csv"), table("item_daily_features.csv")
tags, captions, social = table("item_categories.csv"), table("kuairec_caption_category.csv"), table("social_network.csv")
if captions is not None:
    captions[CATEGORY_IDS] = captions[CATEGORY_IDS].replace(-124, np.nan)
    captions = captions.sort_values("video_id", kind="stable")
lists = [json.loads(text) for text in tags["feat"]] if tags is not None else []
friend_lists = {} if social is None else {u: json.loads(text) for u, text in zip(social["user_id"], social["friend_list"])}

video_ids, user_ids = set(big["video_id"]), set(big["user_id"])
for frame in (small, tags, captions, daily):
    video_ids |= set(frame["video_id"]) if frame is not None else set()
for frame in (small, users, social):
    user_ids |= set(frame["user_id"]) if frame is not None else set()
for friends in friend_lists.values():
    user_ids |= set(friends)
video_ids, user_ids = sorted(video_ids), sorted(user_ids)
caption_of = {} if captions is None else dict(zip(captions["video_id"], captions["caption"].fillna("")))
category_of = {} if captions is None else dict(zip(captions["video_id"], captions["first_level_category_name"].fillna("")))


# --- tables of rows

def row_table(rows):
    timed = bool(rows["timestamp"].notna().any())
    columns = ["user_id", "video_id", "play_duration", "video_duration"] + ["timestamp"] * timed
    shown = [[str(r.user_id), str(r.video_id), r.play_duration, r.video_duration]
             + ([number(r.timestamp)] if timed else []) + [r.label] for r in rows.head(5).itertuples()]
    columns.append("watch_ratio")
    described = {name: describe(rows[column], ROW_QUANTILES) for name, column in
                 [("watch_ratio", "label"), ("play_duration", "play_duration"), ("video_duration", "video_duration")]}
    return {"rows": len(rows), "columns": len(columns), "head": {"columns": columns, "rows": shown},
            "describe": described, "texts": {}, "missing": {name: missing(rows[name]) for name in columns}}


def lengths(rows):
    ends = [0] + [1000 * s for s in LENGTHS] + [float("inf")]
    out = []
    for low, high in zip(ends, ends[1:]):
        of = rows[(rows["video_duration"] >= low) & (rows["video_duration"] < high)]
        name = "< 4 s" if low == 0 else ">= 60 s" if high == float("inf") else f"{low // 1000}-{high // 1000} s"
        out.append({"video_duration": name, "rows": len(of), "share_of_2": share(int((of["label"] >= 2).sum()), len(of)),
                    "median_play_duration": number(of["play_duration"].median())})
    return out


def activity(rows):
    if not rows["timestamp"].notna().any():
        return {"absent": "no row has a timestamp"}
    seconds = pd.to_datetime(np.floor(rows["timestamp"].dropna()).astype("int64"), unit="s") + pd.Timedelta(hours=8)
    days = seconds.dt.strftime("%Y-%m-%d").value_counts().sort_index()
    return {"days": [{"date": day, "rows": int(n)} for day, n in days.items()],
            "hours": seconds.dt.hour.value_counts().reindex(range(24), fill_value=0).tolist(),
            "weekdays": seconds.dt.weekday.value_counts().reindex(range(7), fill_value=0).tolist(),
            "rows_without_time": int(rows["timestamp"].isna().sum()), "rows_beyond_year_9999": 0}


def by_user(rows):
    of = rows.groupby("user_id")["label"]
    counts, means, variance = of.size(), of.mean(), of.var()
    vary = variance.dropna().sort_values(ascending=False, kind="stable").head(10)
    return {"rows": describe(counts), "mean": describe(means),
            "rows_of_2": describe((rows["label"] >= 2).groupby(rows["user_id"]).sum()),
            "rows_histogram": histogram_of_counts(counts.tolist()), "mean_histogram": histogram_of(means),
            "highest_variance": [{"user": str(u), "rows": int(counts[u]), "mean": means[u], "variance": v}
                                 for u, v in vary.items()]}


def by_video(rows):
    of = rows.groupby("video_id")["label"]
    counts, means = of.size(), of.mean()
    many = means[counts > 10]

    def listed(keys, ascending):
        return [{"video": str(v), "rows": int(counts[v]), "mean": means[v], "caption": caption_of.get(v, ""),
                 "category": category_of.get(v, "").replace("UNKNOWN", "")}
                for v in keys.sort_values(ascending=ascending, kind="stable").head(10).index]
    ordered = np.sort(counts.to_numpy())[::-1]
    n = len(ordered)
    taken = [-(-p * n // 100) for p in range(1, 101)]
    differences = 2 * ((2 * np.arange(1, n + 1) - n - 1) * ordered[::-1]).sum()  # |x - y| over all pairs
    return {"rows": describe(counts), "mean": describe(means),
            "rows_histogram": histogram_of_counts(counts.tolist()), "mean_histogram": histogram_of(means),
            "most_viewed": listed(counts, False), "best": listed(many, False), "worst": listed(many, True),
            "popularity": {"curve": [{"share_of_videos": k / n, "share_of_rows": ordered[:k].sum() / ordered.sum()}
                                     for k in taken],
                           "gini": number(differences / (2 * n * ordered.sum()))}}


def of_rows(rows):
    if rows is None:
        return {"absent": ""}
    n_users, n_videos = rows["user_id"].nunique(), rows["video_id"].nunique()
    per_pair = rows.groupby(["user_id", "video_id"]).size()
    few = rows.loc[rows["label"] <= 5, "label"]
    ratio = rows["watch_ratio"]
    return {"rows": len(rows), "users": n_users, "videos": n_videos, "pairs": len(per_pair),
            "cells_filled_by_rows": len(rows) / (n_users * n_videos),
            "cells_filled_by_pairs": len(per_pair) / (n_users * n_videos),
            "label": describe(rows["label"], ROW_QUANTILES), "label_to_5": describe(few, []),
            "label_histogram": bins(rows["label"], 0, .05, 100),
            "positive_share": (ratio >= 1).mean(), "share_of_2": (ratio >= 2).mean(),
            "thresholds": [{"threshold": t, "rows_above": int((ratio > t).sum()), "share_above": (ratio > t).mean()}
                           for t in THRESHOLDS],
            "repeats": {"rows": len(rows) - len(per_pair), "share": 1 - len(per_pair) / len(rows),
                        "most_of_a_pair": int(per_pair.max())},
            "activity": activity(rows), "lengths": lengths(rows),
            "play_duration": describe(rows["play_duration"], ROW_QUANTILES),
            "video_duration": describe(rows["video_duration"], ROW_QUANTILES),
            "by_user": by_user(rows), "by_video": by_video(rows)}


def block():
    if small is None:
        return {"absent": ""}
    inside = big[big["user_id"].isin(set(small["user_id"])) & big["video_id"].isin(set(small["video_id"]))]
    cells = small["user_id"].nunique() * small["video_id"].nunique()
    in_training = len(inside.drop_duplicates(["user_id", "video_id"]))
    return {"users": small["user_id"].nunique(), "videos": small["video_id"].nunique(), "cells": cells,
            "cells_in_test": len(small), "cells_in_training": in_training, "cells_missing_from_test": cells - len(small),
            "share_in_test": len(small) / cells, "share_in_training": in_training / cells}


# --- side tables

def side_table(frame):
    if frame is None:
        return {"absent": ""}
    columns = frame.columns[1:]
    shown = frame.copy()
    shown[frame.columns[0]] = shown[frame.columns[0]].astype(str)
    return {"rows": len(frame), "columns": len(frame.columns), "head": head(shown, TEXTS),
            "describe": {name: describe(frame[name]) for name in columns if name not in TEXTS},
            "texts": {name: texts(frame[name]) for name in columns if name in TEXTS},
            "missing": {name: missing(frame[name]) for name in columns}}


def list_table(frame, values):
    if frame is None:
        return {"absent": ""}
    key, name = frame.columns
    sizes = sorted((of, values_of) for of, values_of in zip(frame[key], values) if values_of)
    return {"rows": len(frame), "columns": 2,
            "head": {"columns": [key, name], "rows": [[str(of), str(of_list)] for of, of_list in sizes[:5]]},
            "describe": {name + " length": describe([len(of_list) for _, of_list in sizes])}, "texts": {},
            "missing": {name: {"count": len(frame) - len(sizes), "share": share(len(frame) - len(sizes), len(frame))}}}


rows_of_video = big.groupby("video_id")["label"].agg(["size", "sum", "mean"])
rows_of_user = big.groupby("user_id")["label"].agg(["size", "sum"])


def groups(pairs, of, key):
    """Members of each group and their training rows."""
    found = pd.DataFrame(pairs, columns=["id", "key"]).merge(of, left_on="id", right_index=True, how="left").fillna(0)
    by = found.groupby("key").agg(members=("id", "size"), rows=("size", "sum"), sum=("sum", "sum")).reset_index()
    return [{key: k, "members": int(m), "rows": int(r), "mean": number(s / r) if r else None}
            for k, m, r, s in by.itertuples(index=False)]


def members_as(name, found):
    renamed = [{name if k == "members" else k: v for k, v in group.items()} for group in found]
    return sorted(renamed, key=lambda group: -group[name])


def by_tag():
    if tags is None:
        return {"absent": ""}
    pairs = [(video, tag) for video, of_video in zip(tags["video_id"], lists) for tag in of_video]
    return {"tags": len(pairs), "by_tag": members_as("videos", groups(pairs, rows_of_video, "tag"))}


def by_category():
    if captions is None:
        return {"absent": ""}
    pairs = list(category_of.items())
    return {"by_category": members_as("videos", groups(pairs, rows_of_video, "category"))}


def by_user_column():
    if users is None:
        return {"absent": ""}
    found = {}
    for column in USER_COLUMNS:
        values = users[column].fillna("").map(lambda x: x if isinstance(x, str) else str(int(x)))
        found[column] = members_as("users", groups(list(zip(users["user_id"], values)), rows_of_user, "value"))
    return found


def friends():
    if social is None:
        return {"absent": ""}
    of = {user: others for user, others in friend_lists.items() if others}
    returned = sum(user in friend_lists.get(other, []) for user, others in of.items() for other in others)
    links = sum(len(others) for others in of.values())
    return {"users_with_friends": len(of), "friendships": links, "returned": returned,
            "share_returned": share(returned, links), "friends": describe([len(others) for others in of.values()])}


def engagement():
    if daily is None:
        return {"absent": ""}
    of = daily.groupby("video_id")
    f = of[FEATURES[1:11]].mean()
    f.insert(0, "video_duration", daily.drop_duplicates("video_id").set_index("video_id")["video_duration"])
    f["engagement_rate"] = f["play_cnt"] / (f["show_cnt"] + 1)
    f["completion_rate"] = f["complete_play_cnt"] / (f["play_cnt"] + 1)
    f["like_rate"] = f["like_cnt"] / (f["play_cnt"] + 1)
    f["avg_watch_ratio"] = f["play_duration"] / (f["video_duration"] + 1)
    f = f.reindex(video_ids)
    mean = rows_of_video["mean"].reindex(video_ids)
    with_mean = [(name, correlation(f[name], mean)) for name in FEATURES]
    best = sorted((pair for pair in with_mean if pair[1] is not None), key=lambda pair: -abs(pair[1]))[:5]
    scatter = []
    for name, _ in best:
        both = pd.DataFrame({"x": f[name], "y": mean}).dropna()
        both = both.iloc[thinned(len(both))]
        scatter.append({"feature": name, "values": both["x"].tolist(), "means": both["y"].tolist()})
    out = {"features": FEATURES, "describe": {name: describe(f[name]) for name in FEATURES},
           "correlations": [[correlation(f[a], f[b]) for b in FEATURES] for a in FEATURES],
           "correlations_with_mean": [{"feature": name, "correlation": r} for name, r in with_mean],
           "scatter": scatter, "components": {"features": COMPONENTS}}
    known = f[COMPONENTS].assign(mean=mean).dropna()
    spread = known[COMPONENTS].std(ddof=0)
    scaled = ((known[COMPONENTS] - known[COMPONENTS].mean()) / spread.where(spread > 0, 1)).to_numpy()
    components = out["components"]
    components["videos"] = len(known)
    if len(known) < 3 or not scaled.any():
        components["undefined"] = ""
        return out
    values, vectors = np.linalg.eigh(np.cov(scaled.T))
    vectors = vectors[:, ::-1][:, :2]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])
    components["explained"] = (values[::-1][:2] / values.sum()).tolist()
    components["vectors"] = vectors.T.tolist()
    drawn = thinned(len(known))
    places = (scaled @ vectors)[drawn]
    components["points"] = {"first": places[:, 0].tolist(), "second": places[:, 1].tolist(),
                            "mean": known["mean"].iloc[drawn].tolist()}
    return out


def computed():
    synthetic = os.path.exists(os.path.join(FOLDER, "SYNTHETIC.txt"))
    duplicates = rows_read - len(big)
    return {
        "dataset": {"kind": "official", "label": "watch_ratio", "synthetic": synthetic, "users": len(user_ids),
                    "videos": len(video_ids), "training_rows": len(big), "test_rows": 0 if small is None else len(small),
                    "time_zone": "UTC+8",
                    "dropped": {"training_rows_read": rows_read, "duplicates": duplicates,
                                "share_of_duplicates": duplicates / rows_read, "malformed": {}}},
        "tables": {"training": row_table(big), "test": {"absent": ""} if small is None else row_table(small),
                   "user_features.csv": side_table(users), "item_categories.csv": list_table(tags, lists),
                   "kuairec_caption_category.csv": side_table(captions), "item_daily_features.csv": side_table(daily),
                   "social_network.csv": list_table(social, list(friend_lists.values()))},
        "training": of_rows(big), "test": of_rows(small), "block": block(), "engagement": engagement(), "tags": by_tag(),
        "categories": by_category(), "user_columns": by_user_column(), "friends": friends()}


# --- the comparison

class Comparison:
    def __init__(self):
        self.equal, self.faults = 0, []

    def compare(self, place, ours, theirs):
        if isinstance(theirs, np.generic):
            theirs = theirs.item()
        if isinstance(theirs, dict) and ("absent" in theirs or "undefined" in theirs) and isinstance(ours, dict):
            # The reason is in words.
            ours, theirs = ({**d, **{k: "" for k in ("absent", "undefined") if k in d}} for d in (ours, theirs))
        if isinstance(theirs, dict) and isinstance(ours, dict) and ours.keys() == theirs.keys():
            for key in theirs:
                self.compare(f"{place}/{key}", ours[key], theirs[key])
        elif isinstance(theirs, list) and isinstance(ours, list) and len(ours) == len(theirs):
            for i, pair in enumerate(zip(ours, theirs)):
                self.compare(f"{place}/{i}", *pair)
        elif self.alike(ours, theirs):
            self.equal += 1
        elif isinstance(theirs, dict) and isinstance(ours, dict):
            self.faults.append(f"{place}: keys {sorted(ours.keys() ^ theirs.keys())} are of one alone")
        else:
            self.faults.append(f"{place}: kuaitrain {str(ours)[:200]}, pandas {str(theirs)[:200]}")

    @staticmethod
    def alike(ours, theirs):
        numbers = (int, float)
        if isinstance(ours, bool) or isinstance(theirs, bool) or not isinstance(ours, numbers) or not isinstance(theirs, numbers):
            return ours == theirs
        if isinstance(ours, int) and isinstance(theirs, int):
            return ours == theirs
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)


def main():
    with open(sys.argv[2]) as file:
        ours = json.load(file)
    for key in ("path", "hash"):
        ours["dataset"].pop(key)
    replica = ours.pop("replica")
    theirs = computed()
    faults = [] if ours.keys() == theirs.keys() else [f"sections: {sorted(ours)} and {sorted(theirs)}"]
    if ("absent" in replica) == theirs["dataset"]["synthetic"]:
        faults.append(f"replica: {replica}")
    for section, of_section in theirs.items():
        comparison = Comparison()
        comparison.compare(section, ours.get(section), of_section)
        print(f"{section}: {comparison.equal} equal")
        faults += comparison.faults
    for fault in faults[:40]:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
