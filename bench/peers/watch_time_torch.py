"""The heads of docs/watch-time.md as plain PyTorch programs on a folder in the official layout without a daily table: trained on
big_matrix.csv, scored on small_matrix.csv.

  watch_time_torch.py FOLDER HEAD [--seeds 3] ...    prints {"mae_s", "xauc", "calibration"}, a list over the seeds each
"""
import argparse
import ast
import csv
import json
import math

import numpy
import torch
from torch import nn
from torch.nn import functional

USER_CODES = ["user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num_range",
              "fans_user_num_range", "friend_user_num_range", "register_days_range", *(f"onehot_feat{k}" for k in range(18))]
LEVELS = [f"{level}_level_category_id" for level in ("first", "second", "third")]
TAGS = 31


def read(path):
    """The columns of a file by name, as texts. A line ends in \n alone."""
    with open(path, newline="\n") as file:
        header, *lines = csv.reader(line.replace("\r", " ") for line in file)
    return dict(zip(header, zip(*lines)))


def numbers(column):
    return numpy.array(column, dtype=float).astype(int)


def codes(column):
    """From 0 on; an empty text is a value of its own."""
    return numpy.unique(numpy.array(column), return_inverse=True)[1]


class Table:
    """What is known of users, videos and rows. Codes of a kind are rows of one table, side by side."""

    def __init__(self, folder):
        big, small = ({name: numbers(rows[name]) for name in ("user_id", "video_id", "play_duration", "video_duration")}
                      for rows in (read(f"{folder}/{name}_matrix.csv") for name in ("big", "small")))
        users, texts, tags = (read(f"{folder}/{name}.csv") for name in ("user_features", "kuairec_caption_category", "item_categories"))
        user_ids, text_ids = numbers(users["user_id"]), numbers(texts["video_id"])
        videos = max(of.max() for of in (big["video_id"], small["video_id"], numbers(tags["video_id"]))) + 1
        duration = numpy.full(videos, numpy.nan)
        ids, first = numpy.unique(big["video_id"], return_index=True)
        duration[ids] = big["video_duration"][first]
        known = ~numpy.isnan(duration)
        duration[~known] = numpy.median(duration[known])
        places = numpy.searchsorted(numpy.sort(duration[known]), duration)
        bag = numpy.zeros((videos, TAGS), numpy.float32)
        for video, of in zip(numbers(tags["video_id"]), tags["feat"]):
            bag[video, ast.literal_eval(of)] = 1 / len(ast.literal_eval(of))
        levels = numpy.zeros((videos, 3), int)
        for k, level in enumerate(LEVELS):
            levels[text_ids, k] = 1 + codes(texts[level])
        log = numpy.log1p(duration)
        counted = log[big["video_id"]]
        of_users = numpy.zeros((user_ids.max() + 1, len(USER_CODES)), int)
        of_users[user_ids] = numpy.stack([codes(users[name]) for name in USER_CODES], 1)
        self.user_codes = self.side_by_side(of_users)
        self.video_codes = self.side_by_side(numpy.concatenate([levels, (50 * places // known.sum())[:, None]], 1))
        self.tags = torch.tensor(bag)
        self.log_duration = torch.tensor((log - counted.mean()) / counted.std(), dtype=torch.float32)[:, None]
        self.train, self.test = ({name: torch.tensor(column) for name, column in rows.items()} for rows in (big, small))
        self.users, self.videos = len(of_users), videos

    @staticmethod
    def side_by_side(columns):
        counts = columns.max(axis=0) + 1
        return torch.tensor(columns + numpy.concatenate([[0], numpy.cumsum(counts)[:-1]]))


class Model(nn.Module):
    def __init__(self, table, options, outputs):
        super().__init__()
        self.table, width = table, options.embedding
        self.embeddings = nn.ModuleList(nn.Embedding(n, width) for n in (
            table.users, table.videos, table.user_codes.max() + 1, table.video_codes.max() + 1, TAGS))
        for embedding in self.embeddings:
            nn.init.trunc_normal_(embedding.weight, 0, 0.05, -0.1, 0.1)
        widths = [width * (3 + table.user_codes.shape[1] + table.video_codes.shape[1]) + 1, *options.hidden]
        layers = []
        for n, m in zip(widths, widths[1:]):
            layers += [nn.Linear(n, m), nn.ReLU(), nn.Dropout(options.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, user, video):
        """Outputs [rows, outputs], and the squared embeddings of each row."""
        users, videos, of_user, of_video, tags = self.embeddings
        bag = self.table.tags[video]
        parts = [users(user), videos(video), of_user(self.table.user_codes[user]).flatten(1),
                 of_video(self.table.video_codes[video]).flatten(1), bag @ tags.weight]
        squares = sum((x ** 2).sum(1) for x in parts[:4]) + (bag > 0).float() @ (tags.weight ** 2).sum(1)
        return self.layers(torch.cat([*parts, self.table.log_duration[video]], 1)), squares


class D2q:
    outputs = 1

    def __init__(self, play, duration):
        self.edges = numpy.unique(numpy.quantile(duration, numpy.linspace(0, 1, 51)[1:-1]))
        of = self.bins(duration)
        self.quantiles = {b: numpy.quantile(play[of == b], numpy.linspace(0, 1, 101)) for b in numpy.unique(of)}

    def bins(self, duration):
        return numpy.searchsorted(self.edges, duration)

    def targets(self, play, duration):
        shares = numpy.linspace(0, 1, 101)
        target = numpy.zeros(len(play))
        for b, quantiles in self.quantiles.items():
            rows = self.bins(duration) == b
            q, first = numpy.unique(quantiles, return_index=True)
            target[rows] = numpy.interp(play[rows], q, shares[first])
        return target

    def loss(self, x, y):
        return functional.mse_loss(torch.sigmoid(x[:, 0]), y)

    def times(self, x, duration):
        shares, bins = torch.sigmoid(x[:, 0]).numpy(), self.bins(duration)
        return numpy.array([numpy.interp(s, numpy.linspace(0, 1, 101), self.quantiles[b]) for s, b in zip(shares, bins)])


class OfMeans:
    """In units of the mean play time."""

    def __init__(self, play, duration):
        self.unit = play.mean()

    def targets(self, play, duration):
        return play / self.unit

    def times(self, x, duration):
        return self.unit * self.decode(x).numpy()


class Wlr(OfMeans):
    outputs = 1

    def loss(self, x, y):
        return functional.binary_cross_entropy_with_logits(x[:, 0], torch.zeros(len(y))) - (y * functional.logsigmoid(x[:, 0])).mean()

    def decode(self, x):
        return x[:, 0].exp()


class Cread(OfMeans):
    outputs = 50

    def __init__(self, play, duration):
        super().__init__(play, duration)
        tried = []
        for a in numpy.arange(0.001, 5, 0.1):
            shares = (1 - numpy.exp(-a * numpy.arange(1, 51) / 50)) / (1 - math.exp(-a))
            levels = numpy.quantile(play, numpy.minimum(shares, 1))
            p, w = numpy.diff(shares, prepend=0), numpy.diff(levels, prepend=0)
            tried.append(((p ** 2).sum() * ((w ** 2 / p).sum() + 50 * (w ** 2).sum()), a, levels))
        levels = min(tried, key=lambda of: of[:2])[2]
        above = (play[:, None] > levels).sum(axis=0)
        self.odds = torch.tensor(numpy.log((above + 0.5) / (len(play) - above + 0.5)), dtype=torch.float32)
        self.levels = torch.tensor(levels / self.unit, dtype=torch.float32)
        self.widths = torch.tensor(numpy.diff(levels / self.unit, prepend=0), dtype=torch.float32)

    def loss(self, x, y):
        chance = torch.sigmoid(x + self.odds)
        rises = (chance[:, 1:] - chance[:, :-1]).relu().sum(1).mean()
        return functional.binary_cross_entropy_with_logits(x + self.odds, (y[:, None] > self.levels).float()) + \
            functional.huber_loss(chance @ self.widths, y) + 2e-5 * rises

    def decode(self, x):
        return torch.sigmoid(x + self.odds) @ self.widths


class Cqe(OfMeans):
    outputs = 100

    def quantiles(self, x):
        return functional.softplus(x + math.log(2 / 100)).cumsum(1)

    def loss(self, x, y):
        error, share = y[:, None] - self.quantiles(x), torch.arange(1, 101) / 101
        return torch.maximum(share * error, (share - 1) * error).sum(1).mean()

    def decode(self, x):
        q = self.quantiles(x)
        return (q.sum(1) + 0.5 * q[:, -1]) / 101  # trapezia from 0 to the first, and on at the last


class Egmn(OfMeans):
    outputs = 32

    def parts(self, x):
        rate = 2 * functional.softplus(0.5 * x[:, :1]) + 1e-6
        mean, deviation = functional.softplus(x[:, 1:11]) + 1 / rate, functional.softplus(x[:, 11:21]) + 1e-6
        return rate, mean, deviation, torch.log_softmax(x[:, 21:], 1)

    def time(self, rate, mean, log_weight):
        return (log_weight.exp() * torch.cat([1 / rate, mean], 1)).sum(1)

    def loss(self, x, y):
        rate, mean, deviation, log_weight = self.parts(x)
        of = torch.distributions.Normal(mean, deviation)
        normal = of.log_prob(y[:, None]) - torch.log(torch.special.ndtr(mean / deviation) + 1e-6)
        density = torch.logsumexp(log_weight + torch.cat([rate.log() - rate * y[:, None], normal], 1), 1)
        entropy = (log_weight.exp() * log_weight).sum(1)
        return (-density + 0.1 * entropy + (self.time(rate, mean, log_weight) - y).abs()).mean()

    def decode(self, x):
        rate, mean, _, log_weight = self.parts(x)
        return self.time(rate, mean, log_weight)


HEADS = {"d2q": D2q, "wlr": Wlr, "cread": Cread, "cqe": Cqe, "egmn": Egmn}


def xauc(play, predicted):
    order, right, pairs = numpy.argsort(play, kind="stable"), 0, 0
    play, predicted = play[order], predicted[order]
    for begin in range(0, len(play), 512):
        above = play[None, begin:] > play[begin:begin + 512, None]
        right += (above & (predicted[None, begin:] > predicted[begin:begin + 512, None])).sum()
        pairs += above.sum()
    return right / pairs


def train(table, options, seed):
    torch.manual_seed(seed)
    rows = table.train
    play, duration = rows["play_duration"].numpy() / 1000, rows["video_duration"].numpy()
    head = HEADS[options.head](play, duration)
    target = torch.tensor(head.targets(play, duration), dtype=torch.float32)
    model = Model(table, options, head.outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    steps = options.epochs * -(-len(play) // options.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(options.epochs):
        for some in torch.randperm(len(play)).split(options.batch):
            x, squares = model(rows["user_id"][some], rows["video_id"][some])
            loss = head.loss(x, target[some]) + options.penalty * squares.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    test = table.test
    with torch.no_grad():
        x = model(test["user_id"], test["video_id"])[0]
        predicted = head.times(x, test["video_duration"].numpy())
    play = test["play_duration"].numpy() / 1000
    return {"mae_s": numpy.abs(predicted - play).mean(), "xauc": xauc(play, predicted), "calibration": predicted.mean() / play.mean()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("head", choices=HEADS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--embedding", type=int, default=8)
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 32])
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--penalty", type=float, default=0.003)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(options.folder)
    results = [train(table, options, seed) for seed in range(1, options.seeds + 1)]
    print(json.dumps({name: [round(float(of[name]), 4) for of in results] for name in results[0]}))


if __name__ == "__main__":
    main()
