"""bench/run calls this: measures the program and its peers in turn and prints ratios. Standard library alone."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
PROGRAM = ROOT / "build" / "release" / "kuaitrain"
LARGE = ["big_matrix.csv", "small_matrix.csv", "item_daily_features.csv"]
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def timed(command):
    """Wall seconds and peak memory (bytes) of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"bench: failed: {' '.join(map(str, command))}")
    return seconds, usage.ru_maxrss * 1024


def output_of(command):
    return json.loads(subprocess.run([str(part) for part in command], check=True, capture_output=True,
                                     text=True, env=ENVIRONMENT).stdout)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def bench_import(source, repeat):
    """Import of all seven files against polars reading the three large ones; in pairs, page cache warm."""
    dataset = WORK / "import"
    polars, own, memory = [], [], 0
    # Warms the page cache; by another process, since a child's peak memory counts what its parent held at the fork.
    subprocess.run(["cat", *source.glob("*.csv")], check=True, stdout=subprocess.DEVNULL)
    for _ in range(repeat):
        peer = output_of([sys.executable, ROOT / "bench/peers/csv_read.py", *(source / name for name in LARGE)])
        polars.append(peer["seconds"])
        shutil.rmtree(dataset, ignore_errors=True)
        seconds, peak = timed([PROGRAM, "import", source, "--out", dataset, "--quiet"])
        own.append(seconds)
        memory = max(memory, peak)
    ratio = statistics.median(a / b for a, b in zip(own, polars))
    print(f"import     {statistics.median(own):6.2f} s, {memory / 1e6:.0f} MB at most; polars, reading alone "
          f"{statistics.median(polars):.2f} s: ratio {ratio:.2f}")
    return dataset, {"seconds": spread(own), "peak_memory_bytes": memory, "polars_seconds": spread(polars),
                     "ratio": ratio}


def bench_train(dataset, repeat):
    """Samples/s of whole processes on 1 and 2 ranks, exact and fast, at the default batch."""
    results = {}
    for ranks, reduce in [(1, "exact"), (2, "exact"), (2, "fast")]:
        rates, peak, evaluation = [], 0, []
        for _ in range(repeat):
            run = WORK / "run"
            shutil.rmtree(run, ignore_errors=True)
            result = output_of(["mpirun", "--oversubscribe", "-np", ranks, PROGRAM, "--json", "--quiet",
                                f"data.path={dataset}", f"run.dir={run}", f"parallel.reduce={reduce}",
                                "train.epochs=1"])
            rates.append(result["epochs"][0]["samples_per_second"])
            evaluation.append(result["evaluation"]["seconds"])
            peak = max(peak, result["peak_memory_bytes"])
        name = f"{ranks} ranks, {reduce}"
        print(f"train      {name:14} {statistics.median(rates) / 1e6:6.3f} M samples/s, "
              f"evaluation {statistics.median(evaluation):.2f} s, {peak / 1e6:.0f} MB a rank")
        results[name] = {"samples_per_second": spread(rates), "evaluation_seconds": spread(evaluation),
                         "peak_memory_bytes": peak}
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    source = WORK / f"csv-{options.scale:g}"
    if not source.exists():
        timed([PROGRAM, "synth", "--out", source, "--scale", options.scale, "--quiet"])
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    print(f"synthetic data, scale {options.scale:g}; {os.cpu_count()} x {cpu}; median of {options.repeat}")
    dataset, imported = bench_import(source, options.repeat)
    results = {"date": time.strftime("%Y-%m-%d"), "cpu": cpu, "cores": os.cpu_count(), "scale": options.scale,
               "import": imported, "train": bench_train(dataset, options.repeat)}
    (WORK / "result.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"kept in {(WORK / 'result.json').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
