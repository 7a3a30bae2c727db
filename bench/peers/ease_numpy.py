"""How long NumPy takes for the closed form of a linear autoencoder: X'X, its inverse, and the scores of some users.

  ease_numpy.py TABLE.csv [--users N] [--threads N]       prints {"seconds", "peak_memory_bytes"}
"""
import argparse
import json
import resource
import time

import numpy
import threadpoolctl

from table import read_pairs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--users", type=int, default=1_411)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    x = read_pairs(options.table, 1).toarray().astype(numpy.float64)
    with threadpoolctl.threadpool_limits(options.threads):
        start = time.perf_counter()
        gram = x.T @ x
        gram[numpy.diag_indices_from(gram)] += 500
        inverse = numpy.linalg.inv(gram)
        weights = inverse / -numpy.diag(inverse)
        numpy.fill_diagonal(weights, 0)
        x[:options.users] @ weights
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds,
                      "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
