"""How long an epoch of the autoencoder of configs/autoencoder_reference.yaml takes in PyTorch, on dense rows of users.
The first epoch is left out.

  autoencoder_torch.py TABLE.csv [--epochs N] [--threads N]        prints {"seconds", "peak_memory_bytes"}
"""
import argparse
import json
import resource
import time

import torch
from torch import nn

from table import read_pairs

BATCH = 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    x = torch.from_numpy(read_pairs(options.table, 2).toarray())
    videos = x.shape[1]
    net = nn.Sequential(nn.Linear(videos, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 128), nn.ReLU(),
                        nn.Linear(128, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, videos))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-5)
    starts = []
    for _ in range(options.epochs + 1):
        starts.append(time.perf_counter())
        for users in torch.randperm(len(x)).split(BATCH):
            batch = x[users]
            loss = nn.functional.binary_cross_entropy_with_logits(net(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(json.dumps({"seconds": (time.perf_counter() - starts[1]) / options.epochs,
                      "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
