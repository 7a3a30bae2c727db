"""How long a step of lightgcn of configs/lightgcn.yaml takes in PyTorch: layers by products with the sparse matrix of all
shown pairs, forward and back, a batch of rows between them, and Adam over both tables. The first step is left out.

  lightgcn_torch.py TABLE.csv [--steps N] [--threads N]        prints {"seconds", "peak_memory_bytes"}
"""
import argparse
import json
import resource
import time
import warnings

import numpy
import scipy.sparse
import torch
from torch.nn import functional

from table import read_pairs

BATCH, WIDTH, LAYERS, PENALTY = 65536, 64, 3, 1e-3


def normalised(pairs):
    """D^-1/2 A D^-1/2 of users, then videos."""
    graph = scipy.sparse.bmat([[None, pairs], [pairs.T, None]], format="csr")
    scale = scipy.sparse.diags((1 / numpy.sqrt(graph.sum(axis=1).A1)).astype(numpy.float32))
    graph = (scale @ graph @ scale).tocsr()
    return torch.sparse_csr_tensor(torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices),
                                   torch.from_numpy(graph.data), graph.shape)


class Propagate(torch.autograd.Function):
    """The matrix is symmetric: gradients come back by the same product."""

    @staticmethod
    def forward(context, graph, rows):
        context.graph = graph
        return graph @ rows

    @staticmethod
    def backward(context, gradient):
        return None, context.graph @ gradient.contiguous()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Sparse")
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    pairs = read_pairs(options.table, 0)
    graph, (users, videos) = normalised(pairs), pairs.shape
    user, video = (torch.from_numpy(index.astype(numpy.int64)) for index in pairs.nonzero())
    rows = torch.nn.Parameter(torch.randn(users + videos, WIDTH) * 0.0125)
    biases = torch.nn.Parameter(torch.zeros(users + videos))
    optimizer = torch.optim.Adam([rows, biases], lr=5e-3)
    starts = []
    for _ in range(options.steps + 1):
        starts.append(time.perf_counter())
        batch = torch.randint(len(user), (BATCH,))
        u, v = user[batch], users + video[batch]
        layer = mean = rows
        for _ in range(LAYERS):
            layer = Propagate.apply(graph, layer)
            mean = mean + layer
        mean = mean / (1 + LAYERS)
        output = (mean[u] * mean[v]).sum(1) + biases[u] + biases[v]
        penalty = PENALTY * (rows[u].square().sum() + rows[v].square().sum()) / BATCH
        loss = functional.mse_loss(output, torch.ones(BATCH)) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(json.dumps({"seconds": (time.perf_counter() - starts[1]) / options.steps,
                      "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
