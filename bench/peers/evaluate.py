"""How long PyTorch takes to score every user with every video in blocks of users, to find each user's best 100 and
one AUC over all pairs. The other metrics are left out.

  evaluate.py [--users N] [--videos N] [--threads N]     prints {"pairs", "score_seconds", "seconds"}
"""
import argparse
import json
import time

import numpy
import torch

from ncf_torch import Ncf

BLOCK_USERS = 16
TOP = 100


@torch.inference_mode()
def score(model, users, videos):
    """[users, videos]"""
    video = torch.arange(videos)
    blocks = []
    for block in torch.arange(users).split(BLOCK_USERS):
        predicted = model(block.repeat_interleave(videos), video.repeat(len(block)))
        blocks.append(predicted.view(len(block), videos))
    return torch.cat(blocks)


def auc(scores, positive):
    """From the ranks of the positive pairs. By NumPy, whose sort is the faster one; ties are not halved."""
    order = numpy.argsort(scores.numpy(), axis=None)
    ranks = numpy.flatnonzero(positive.numpy().ravel()[order]) + 1
    positives = len(ranks)
    return (ranks.sum() - positives * (positives + 1) / 2) / (positives * (len(order) - positives))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_411)
    parser.add_argument("--videos", type=int, default=3_327)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    model = Ncf(options.users, options.videos).eval()
    positive = torch.rand(options.users, options.videos) < 0.1
    score(model, min(options.users, 2 * BLOCK_USERS), options.videos)  # starts the threads
    start = time.perf_counter()
    scores = score(model, options.users, options.videos)
    scored = time.perf_counter()
    scores.topk(min(TOP, options.videos), 1)
    auc(scores, positive)
    end = time.perf_counter()
    print(json.dumps({"pairs": scores.numel(), "score_seconds": scored - start, "seconds": end - start}))


if __name__ == "__main__":
    main()
