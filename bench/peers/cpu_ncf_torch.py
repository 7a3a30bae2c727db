"""Training speed of ncf in PyTorch on a CPU: fused Adam, a batch gathered from all samples in a shuffled order.

  cpu_ncf_torch.py eager|compiled --global-batch B [--rows N --users N --videos N] [--seconds S]
  torchrun --nproc-per-node 2 cpu_ncf_torch.py ddp --global-batch B ...
                    prints {"global_batch", "steps", "samples_per_second", "first_loss", "last_loss"}

eager, compiled: one process of OMP_NUM_THREADS threads, the second under torch.compile; ddp: DistributedDataParallel
over gloo, one thread a process.
"""
import os
import time

import torch
import torch.distributed as dist
from torch import nn

from cpu_ncf import measure, parse_options
from ncf_torch import Ncf, Samples

FORMS = ["eager", "compiled", "ddp"]


class Training:
    """A process's samples, and steps over them. make_model(users, videos): a module of users and videos."""

    def __init__(self, options, make_model=Ncf):
        self.ranks = dist.get_world_size() if options.form == "ddp" else 1
        rank = dist.get_rank() if options.form == "ddp" else 0
        if options.global_batch % self.ranks:
            raise SystemExit(f"--global-batch: {options.global_batch} is no multiple of {self.ranks} processes")
        torch.manual_seed(1)
        self.samples = Samples(options.rows, options.users, options.videos)
        self.batch = options.global_batch // self.ranks
        self.order = self.samples.order[rank::self.ranks]
        self.model = make_model(options.users, options.videos)
        if options.form == "ddp":
            self.model = nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True)
            torch.manual_seed(1 + rank)  # a rank drops units of its own
        self.loss = torch.compile(self.samples.loss) if options.form == "compiled" else self.samples.loss
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.steps = 0

    def next_rows(self):
        """[batch]"""
        position = self.steps % (len(self.order) // self.batch) * self.batch
        self.steps += 1
        return self.order[position:position + self.batch]

    def step(self):
        """Returns: the loss."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model, self.next_rows())
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def take(self, steps):
        """Returns: seconds, of the slowest process, the same number on every one; losses, of this one."""
        if self.ranks > 1:
            dist.barrier()
        start = time.perf_counter()
        losses = [self.step() for _ in range(steps)]
        seconds = torch.tensor(time.perf_counter() - start)
        if self.ranks > 1:
            dist.all_reduce(seconds, dist.ReduceOp.MAX)
        return seconds.item(), losses


def measure_training(options, make_model=Ncf):
    if options.form == "ddp":
        dist.init_process_group("gloo")
    found = measure(Training(options, make_model), options)
    if options.form != "ddp" or dist.get_rank() == 0:
        print(found, flush=True)
    if options.form == "ddp":
        dist.barrier()
        os._exit(0)  # DDP never lets its process group go, and threads of that may call Python while Python ends: an abort


def main():
    measure_training(parse_options(__doc__, FORMS))


if __name__ == "__main__":
    main()
