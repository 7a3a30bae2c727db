"""Scores pairs of users and videos from an export of kuaitrain, with numpy alone.

    score_export.py EXPORT PAIRS.csv     # user_id,video_id,...   prints user_id,video_id,score
"""
import csv
import json
import sys

import numpy as np


def load(path):
    """The arrays of an export by name, and the document that says how they score."""
    if path.endswith(".npz"):
        file = np.load(path)
        return {name: file[name] for name in file.files if name != "metadata.json"}, json.loads(file["metadata.json"])
    data = np.memmap(path, np.uint8, "r")
    begin = 8 + int(data[:8].view(np.int64)[0])
    header = json.loads(bytes(data[8:begin]))
    document = json.loads(header.pop("__metadata__")["kuaitrain"])
    types = {"F32": np.float32, "I64": np.int64, "I32": np.int32, "U8": np.uint8}

    def array(of):
        first, end = of["data_offsets"]
        return data[begin + first : begin + end].view(types[of["dtype"]]).reshape(of["shape"])

    return {name: array(of) for name, of in header.items()}, document


def rows_of_ids(arrays, name):
    """The row that each id has in the tables of its kind."""
    text, begin = bytes(arrays[name + ".bytes"]), arrays[name + ".begin"]
    return {text[begin[k] : begin[k + 1]].decode(): k for k in range(len(begin) - 1)}


def history(arrays, user):
    """The videos of each user's training rows, and what a system reads of them."""
    for begin, end in zip(arrays["history.begin"][user], arrays["history.begin"][user + 1]):
        yield arrays["history.item"][begin:end], arrays["history.value"][begin:end].astype(float)


def label_mean(arrays, mean, unseen, user, video):
    table = arrays[mean["array"]]
    if "groups" not in mean:
        return table[user if mean["side"] == "user" else video, 0]
    groups = arrays[mean["groups"]][video].astype(int)  # -1 after the last
    counts = (groups >= 0).sum(axis=1)
    sums = (np.take_along_axis(table[user], np.maximum(groups, 0), axis=1) * (groups >= 0)).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), unseen)


def leaves_of(splits, x):
    """The leaf of a tree that each row comes to: splits are column, threshold, and two ways, to another split or, not above 0, to a leaf."""
    way = np.zeros(len(x), int)
    inside = np.ones(len(x), bool)
    while inside.any():
        column, threshold, low, high = splits[way[inside]].T
        values = x[inside, column.astype(int)]
        way[inside] = np.where(values <= threshold, low, high)
        inside &= way > 0
    return -way


def compute(layer, x, arrays, user, video):
    """A layer's values for each pair. Shapes: x the values of its inputs, user and video [pairs], result [pairs, width]."""
    kind, w = layer["kind"], [arrays[name] for name in layer["arrays"]]
    if kind in ("user_table", "item_table"):
        return w[0][user if kind == "user_table" else video].astype(float)
    if kind == "columns":
        columns = slice(layer["first"], layer["first"] + layer["width"])
        return w[0][user if layer["side"] == "user" else video, columns].astype(float)
    if kind == "label_means":
        centre, unit, unseen = w[0].astype(float)
        means = [label_mean(arrays, mean, unseen[c], user, video) for c, mean in enumerate(layer["means"])]
        columns = (np.stack(means, axis=1) - centre) / unit
        return columns[:, layer["first"] : layer["first"] + layer["width"]]
    if kind == "history_sum":
        users, row = np.unique(user, return_inverse=True)
        return np.stack([value @ w[0][item].astype(float) for item, value in history(arrays, users)])[row]
    if kind == "history_product":
        weights, column = w
        return np.array([[value @ weights[v, column[item]].astype(float)] for v, (item, value) in zip(video, history(arrays, user))])
    if kind == "lookup":
        counts = layer["code_counts"]
        codes = x[0][:, layer["first"] : layer["first"] + len(counts)].astype(int)
        return w[0][codes + np.cumsum([0, *counts[:-1]])].reshape(len(user), -1).astype(float)
    if kind == "dense":
        return x[0] @ w[0].astype(float) + w[1]
    if kind == "trees":
        columns = np.concatenate(x, axis=1).astype(np.float32)
        splits, values = w[0].reshape(layer["trees"], -1, 4), w[1].reshape(layer["trees"], -1)
        return sum(of[leaves_of(tree, columns)].astype(float) for tree, of in zip(splits, values))[:, None]
    if kind == "product":
        return x[0] @ w[0].astype(float)
    if kind in ("fold", "pair_dots"):
        vectors = x[0].reshape(len(user), -1, layer["vector_width"])
        if kind == "fold":
            return vectors.sum(axis=1)
        return (vectors @ vectors.transpose(0, 2, 1))[(slice(None), *np.tril_indices(vectors.shape[1], -1))]
    if kind == "bias":
        return x[0] + w[0]
    if kind == "batch_norm":
        gamma, beta, mean, variance = (a.astype(float) for a in w)
        return gamma * (x[0] - mean) / np.sqrt(variance + layer["epsilon"]) + beta
    if kind == "l2_normalize":
        return x[0] / np.maximum(np.sqrt((x[0] ** 2).sum(axis=1, keepdims=True)), 1e-12)
    if kind == "dot":
        return (x[0] * x[1]).sum(axis=1, keepdims=True)
    return {
        "relu": lambda: np.maximum(x[0], 0),
        "sigmoid": lambda: 1 / (1 + np.exp(-x[0])),
        "tanh": lambda: np.tanh(x[0]),
        "concat": lambda: np.concatenate(x, axis=1),
        "add": lambda: x[0] + x[1],
        "multiply": lambda: x[0] * x[1],
        "scale": lambda: layer["factor"] * x[0],
    }[kind]()


def play_times(arrays, of, outputs, video):
    """In units of play_times.unit (docs/watch-time.md). Shapes: outputs [pairs, outputs], result [pairs]."""
    if of["head"] == "share":
        table = arrays["play_times.quantiles"].astype(float)
        ranges = np.maximum(np.searchsorted(table[:, 0], arrays["play_times.duration"][video, 0], "right") - 1, 0)
        steps = np.linspace(0, 1, table.shape[1] - 1)
        return np.array([np.interp(share, steps, table[r, 1:]) for share, r in zip(outputs[:, 0], ranges)])
    if of["head"] == "odds":
        return np.exp(outputs[:, 0])
    n = outputs.shape[1]
    if of["head"] == "levels":
        levels, odds = arrays["play_times.levels"].astype(float)
        return 1 / (1 + np.exp(-outputs - odds)) @ np.diff(levels, prepend=0)
    softplus = lambda x: np.logaddexp(0, x)
    if of["head"] == "quantiles":
        quantiles = np.cumsum(softplus(outputs + np.log(2 / n)), axis=1)
        quantiles = np.concatenate([np.zeros((len(outputs), 1)), quantiles, quantiles[:, -1:]], axis=1)
        shares = np.linspace(0, 1, n + 2)
        if of["quantile"] > 0:
            return np.array([np.interp(of["quantile"], shares, row) for row in quantiles])
        return ((quantiles[:, 1:] + quantiles[:, :-1]) / 2).mean(axis=1)
    gaussians = (n - 2) // 3  # a mixture
    mean = 1 / (2 * softplus(outputs[:, :1] / 2) + 1e-6)
    mean = np.concatenate([mean, softplus(outputs[:, 1 : 1 + gaussians]) + mean], axis=1)
    weight = np.exp(outputs[:, 1 + 2 * gaussians :] - outputs[:, 1 + 2 * gaussians :].max(axis=1, keepdims=True))
    return (weight * mean).sum(axis=1) / weight.sum(axis=1)


def score(arrays, document, user, video):
    """Shapes: user and video, rows of their tables, and result [pairs]."""
    values = []
    for layer in document["graph"]:
        values.append(compute(layer, [values[k] for k in layer["inputs"]], arrays, user, video))
    output, of = values[-1][:, 0], document["score"]
    if of["function"] == "play_time":
        return play_times(arrays, of, values[-1], video) * arrays["play_times.unit"][0, 0] / arrays["play_times.duration"][video, 0]
    return np.expm1(output) if of["function"] == "expm1" else of["factor"] * output + of["offset"]


def main(export, pairs):
    arrays, document = load(export)
    users, videos = rows_of_ids(arrays, "user_id"), rows_of_ids(arrays, "video_id")
    with open(pairs, newline="") as file:
        ids = [(line["user_id"], line["video_id"]) for line in csv.DictReader(file)]
    scores = score(arrays, document, np.array([users[user] for user, _ in ids]), np.array([videos[video] for _, video in ids]))
    print("user_id,video_id,score")
    for (user, video), value in zip(ids, scores):
        print(f"{user},{video},{value:.9g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
