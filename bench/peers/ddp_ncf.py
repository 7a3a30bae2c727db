"""Training speed of the same model under PyTorch's DistributedDataParallel: gloo, fused Adam, one thread a process.

  torchrun --nproc-per-node 2 ddp_ncf.py --global-batch B [--rows N --users N --videos N] [--seconds S]
                                    prints {"ranks", "global_batch", "steps", "samples_per_second"}

Ids and labels are random, since they do not change the speed; a batch is gathered from all rows in a shuffled order.
"""
import argparse
import json
import math
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

FEATURES = 15
WARM_UP_STEPS = 20


class Ncf(nn.Module):
    """configs/ncf.yaml: two tables 32 wide, 15 features through a layer of 32, layers of 32, 16 and 1."""

    def __init__(self, users, videos):
        super().__init__()
        self.user_table = nn.Embedding(users, 32)
        self.video_table = nn.Embedding(videos, 32)
        self.content = nn.Linear(FEATURES, 32)
        self.hidden1 = nn.Linear(96, 32)
        self.hidden2 = nn.Linear(32, 16)
        self.output = nn.Linear(16, 1)
        self.register_buffer("features", torch.randn(videos, FEATURES))

    def forward(self, user, video):  # [rows], [rows] -> [rows]
        content = self.content(self.features[video]).relu()
        x = torch.cat([self.user_table(user), self.video_table(video), content], 1)
        x = functional.dropout(self.hidden1(x).relu(), 0.2, self.training)
        return self.output(self.hidden2(x).relu()).squeeze(1)


class Training:
    """A rank's rows, and steps over them."""

    def __init__(self, options):
        self.batch = options.global_batch // dist.get_world_size()
        rows = options.rows // dist.get_world_size()
        if rows < self.batch:
            raise SystemExit(f"ddp_ncf: {options.rows} rows are fewer than a batch of {options.global_batch}")
        self.user = torch.randint(options.users, (rows,), dtype=torch.int32)
        self.video = torch.randint(options.videos, (rows,), dtype=torch.int32)
        self.label = torch.rand(rows)
        self.order = torch.randperm(rows)
        self.position = 0
        self.model = nn.parallel.DistributedDataParallel(Ncf(options.users, options.videos))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)

    def step(self):
        if self.position + self.batch > len(self.order):
            self.position = 0
        rows = self.order[self.position:self.position + self.batch]
        self.position += self.batch
        self.optimizer.zero_grad()
        predicted = self.model(self.user[rows], self.video[rows])
        functional.mse_loss(predicted, self.label[rows]).backward()
        self.optimizer.step()

    def seconds_of(self, steps):
        """Of the slowest rank: the same number on every one."""
        dist.barrier()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        seconds = torch.tensor(time.perf_counter() - start)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        return seconds.item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--global-batch", type=int, required=True)
    parser.add_argument("--rows", type=int, default=10_400_000)
    parser.add_argument("--users", type=int, default=7_176)
    parser.add_argument("--videos", type=int, default=10_728)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(1 + dist.get_rank())
    training = Training(options)
    training.seconds_of(WARM_UP_STEPS)
    steps = math.ceil(options.seconds * WARM_UP_STEPS / training.seconds_of(WARM_UP_STEPS))
    seconds = training.seconds_of(steps)
    if dist.get_rank() == 0:
        batch = training.batch * dist.get_world_size()
        print(json.dumps({"ranks": dist.get_world_size(), "global_batch": batch, "steps": steps,
                          "samples_per_second": steps * batch / seconds}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
