"""How long a sweep of implicit's alternating least squares takes on the positive pairs of a table, in its fast form
(three steps of conjugate gradients) and in its exact one, and its memory. The first sweep is left out.

  als_implicit.py TABLE.csv [--factors N] [--sweeps N] [--threads N]    prints {"pairs", "cg", "exact", "peak_memory_bytes"}
"""
import argparse
import json
import resource
import time

import implicit.als
import threadpoolctl

from table import read_pairs


def seconds_a_sweep(matrix, options, use_cg):
    ends = []
    model = implicit.als.AlternatingLeastSquares(
        factors=options.factors, regularization=0.01, iterations=options.sweeps + 1, use_cg=use_cg,
        num_threads=options.threads, random_state=1)
    model.fit(matrix, show_progress=False, callback=lambda *_: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / options.sweeps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with threadpoolctl.threadpool_limits(1, "blas"):  # as implicit asks for
        matrix = read_pairs(options.table, 1)
        print(json.dumps({"pairs": matrix.nnz, "cg": seconds_a_sweep(matrix, options, True),
                          "exact": seconds_a_sweep(matrix, options, False),
                          "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
