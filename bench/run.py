"""bench/run calls this: measures the program and its peers in turn, prints ratios as it goes and keeps them as JSON.
Standard library alone. Two ranks of one thread unless a line says otherwise; page cache warm."""
import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
RESULT = WORK / "result.json"
RUN = WORK / "run"  # of the training at hand
PROGRAM = ROOT / "build" / "release" / "kuaitrain"
VENV = WORK / "venv"
LARGE = ["big_matrix.csv", "small_matrix.csv", "item_daily_features.csv"]
POLARS = ["polars==2.1.0"]
PYTORCH = ["torch==2.15.0", "numpy"]
JAX = ["jax==0.10.2", "optax==0.2.8"]
MATRICES = [*PYTORCH, *POLARS, "implicit", "scipy", "threadpoolctl"]
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   PYTHONDONTWRITEBYTECODE="1")
STOP_SECONDS = 20  # for a process to end its children, before it is killed


# --- Processes -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Finished:
    output: str
    seconds: float
    peak_memory_bytes: int  # of the process itself, not of its children


def run(*command, **environment):
    """Runs a command to its end. In a session of its own, so that an interrupt reaches this process alone, which then
    ends the command with everything it started."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL,
                                   env={**ENVIRONMENT, **environment}, start_new_session=True)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                stop(process)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{errors.read()}bench: exit {process.returncode}: {' '.join(command)}")
        return Finished(output.read(), seconds, usage.ru_maxrss * 1024)


def stop(process):
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def peer(script, *arguments, processes=1, wait="passive"):
    """What a script of bench/peers prints. Its threads wait asleep, or a busy machine would show it far too slow; where
    they wait often, spinning (wait="active") can be quicker on one that is quiet."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", processes] if processes > 1 else []
    command = [VENV / "bin" / "python", *start, ROOT / "bench" / "peers" / script, *arguments]
    threads = "1" if processes > 1 else "2"
    return json.loads(run(*command, OMP_NUM_THREADS=threads, OMP_WAIT_POLICY=wait,
                          TORCHINDUCTOR_CACHE_DIR=str(WORK / "torchinductor")).output)


def kuaitrain(*arguments, ranks=2, threads=1):
    """The JSON document of a command on some ranks."""
    binding = ["--bind-to", "none"] if threads > 1 else []  # Open MPI binds one rank or two to a core each
    return json.loads(run("mpirun", "--oversubscribe", *binding, "-np", ranks, PROGRAM, *arguments, "--json",
                          "--quiet").output)


def train(dataset, *overrides, ranks=2, threads=1, epochs=2):
    """The result of a new run in RUN."""
    shutil.rmtree(RUN, ignore_errors=True)
    return kuaitrain("train", f"data.path={dataset}", f"run.dir={RUN}", f"parallel.threads={threads}",
                     f"train.epochs={epochs}", *overrides, ranks=ranks, threads=threads)


def plan(data, *overrides):
    """What `kuaitrain plan` expects of such a run on two ranks."""
    return json.loads(run(PROGRAM, "plan", "--ranks", 2, f"data.path={data}", *overrides, "--json", "--quiet").output)


# --- Data ------------------------------------------------------------------------------------------------------------


def csv_files(scale):
    """A synthetic replica, made once, in the page cache."""
    folder = WORK / f"csv-{scale:g}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        run(PROGRAM, "synth", "--out", part, "--scale", scale, "--quiet")
        part.rename(folder)
    for path in folder.glob("*.csv"):
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    return folder


def import_files(scale, shards=None):
    """Imports anew. What it took."""
    folder = dataset_path(scale, shards)
    shutil.rmtree(folder, ignore_errors=True)
    cut = ["--shards", shards] if shards else []
    return run(PROGRAM, "import", csv_files(scale), "--out", folder, *cut, "--quiet")


def spread_table(path, users, items, rows_of_user):
    """A table of few rows a user, far apart in the file, and of as many a video."""
    prime = 1_000_003  # shares no factor with what users and items are
    with open(path, "w") as file:
        file.write("user,video,ratio\n")
        for k in range(rows_of_user):
            for begin in range(0, users, 100_000):
                file.writelines(
                    f"{at * prime % users},{(at * 7 + k * users) * prime % items},{at % 199 / 100}\n"
                    for at in range(begin, min(begin + 100_000, users)))


def dataset_path(scale, shards=None):
    return WORK / (f"dataset-{scale:g}-{shards}" if shards else f"dataset-{scale:g}")


def dataset(scale, shards=None):
    """The imported replica; imported anew when the program is newer."""
    manifest = dataset_path(scale, shards) / "manifest.json"
    if not manifest.exists() or manifest.stat().st_mtime < PROGRAM.stat().st_mtime:
        import_files(scale, shards)
    return dataset_path(scale, shards)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


# --- Figures ---------------------------------------------------------------------------------------------------------


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def number(x):
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def show(values, unit=""):
    """Median (smallest-largest)."""
    text = number(statistics.median(values))
    if len(values) > 1:
        text += f" ({number(min(values))}-{number(max(values))})"
    return f"{text} {unit}".rstrip()


def ratios(own, other):
    """Pair by pair: what was measured one after the other."""
    return [a / b for a, b in zip(own, other)]


def verdict(met):
    return "met" if met else "NOT met"


class Report:
    """The table, a line at a time, and the JSON, a part at a time: what an interrupted run measured stays."""

    def __init__(self, machine):
        self.machine = machine
        self.part = None
        self.rows = []

    def begin(self, part, about):
        self.part = part
        self.rows = []
        print(f"\n{part}: {about}", flush=True)

    def line(self, what, kept, own, beside="", ratio="", wanted=""):
        print(f"  {what:38} {own:24} {beside:44} {ratio:24} {wanted}".rstrip(), flush=True)
        self.rows.append({"what": what, **kept})

    def figure(self, what, own, unit, beside=None, least=None, most=None):
        """Values of `own`; `beside` is (name, values) measured in pairs with them. A limit is one of their ratio, or
        of `own` where it stands alone."""
        kept = {"unit": unit, "own": spread(own)}
        judged, texts = own, {}
        if beside:
            name, other = beside
            judged = ratios(own, other)
            kept.update({"beside": name, "other": spread(other), "ratio": spread(judged)})
            texts = {"beside": f"{name} {show(other, unit)}", "ratio": f"ratio {show(judged)}"}
        if least is not None or most is not None:
            limit, sign = (least, ">=") if least is not None else (most, "<=")
            middle = statistics.median(judged)
            met = middle >= limit if least is not None else middle <= limit
            kept.update({"wanted": f"{sign} {limit:g}", "met": met})
            texts["wanted"] = f"{sign} {limit:g}: {verdict(met)}"
        self.line(what, kept, show(own, unit), **texts)

    def end(self):
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        kept[self.part] = {**self.machine, "rows": self.rows}
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")


def machine(options):
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "unknown CPU")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "cpu": model, "cpus": os.cpu_count(),
            "load": os.getloadavg()[0], "commit": commit.stdout.strip() or "unknown", "scale": options.scale,
            "repeat": options.repeat}


# --- Parts -----------------------------------------------------------------------------------------------------------


def millions_a_second(result):
    """Over all epochs of a run."""
    seconds = sum(epoch["seconds"] for epoch in result["epochs"])
    return sum(epoch["samples_per_second"] * epoch["seconds"] for epoch in result["epochs"]) / seconds / 1e6


TRAINING_PEERS = {
    "PyTorch eager": lambda *sizes: quicker_wait("cpu_ncf_torch.py", "eager", *sizes),
    "PyTorch compiled": lambda *sizes: quicker_wait("cpu_ncf_torch.py", "compiled", *sizes),
    "PyTorch DDP, 2 processes": lambda *sizes: peer("cpu_ncf_torch.py", "ddp", *sizes, processes=2),
    "JAX": lambda *sizes: peer("cpu_ncf_jax.py", *sizes)}


def quicker_wait(*command):
    return max((peer(*command, wait=wait) for wait in ["passive", "active"]), key=lambda found: found["samples_per_second"])


def bench_train(report, options):
    """Whole epochs at four global batches, M samples/s, beside the best of PyTorch (one process, compiled, DDP) and JAX."""
    data = dataset(options.scale)
    counts = manifest_of(data)
    for batch, least in [(1024, 7), (4096, None), (16384, 7), (65536, 7)]:
        own, peers = [], {name: [] for name in TRAINING_PEERS}
        for _ in range(options.repeat):
            result = train(data, f"train.global_batch={batch}")
            own.append(millions_a_second(result))
            sizes = ["--global-batch", batch, "--rows", result["dataset"]["rows_train"], "--users", counts["users"],
                     "--videos", counts["items"]]
            for name, measure in TRAINING_PEERS.items():
                peers[name].append(measure(*sizes)["samples_per_second"] / 1e6)
        best = [max(values) for values in zip(*peers.values())]
        report.figure(f"batch {batch:,}", own, "", ("best peer", best), least=least)
        for name, values in peers.items():
            report.figure(f"  {name}", values, "")


def bench_scaling(report, options):
    """Ranks beside threads and the exact reduction beside the fast one, M samples/s; where the time of a run goes."""
    data = dataset(options.scale)
    for batch in [4096, 16384]:
        one, threads, two, fast = [], [], [], []
        for _ in range(options.repeat):
            overrides = [f"train.global_batch={batch}"]
            one.append(millions_a_second(train(data, *overrides, ranks=1)))
            threads.append(millions_a_second(train(data, *overrides, ranks=1, threads=2)))
            result = train(data, *overrides)
            two.append(millions_a_second(result))
            fast.append(millions_a_second(train(data, *overrides, "parallel.reduce=fast")))
        report.figure(f"batch {batch:,}, 2 ranks", two, "", ("1 rank", one), least=1.8)
        report.figure(f"batch {batch:,}, 1 rank, 2 threads", threads, "", ("2 ranks", two), least=0.85)
        report.figure(f"batch {batch:,}, 2 ranks, fast", fast, "", ("exact", two))
        planned = plan(data, *overrides)["step"]["samples_per_second"] / 1e6
        report.figure(f"batch {batch:,}, 2 ranks", two, "", ("plan", [planned] * options.repeat))
        if "seconds" in result:
            shares = "  ".join(f"{name} {number(seconds)}" for name, seconds in result["seconds"].items())
            report.line(f"batch {batch:,}, 2 ranks, seconds of", {"seconds": result["seconds"]}, shares)


def bench_bits(report, options):
    """One hash of the weights after ten steps, whatever the ranks, the threads and the width of vectors."""
    data = dataset(options.scale)
    widths = ["avx2", "avx512"] if "avx512f" in pathlib.Path("/proc/cpuinfo").read_text() else ["avx2"]
    variants = [(ranks, threads, "auto") for ranks in [1, 2, 3, 4, 8] for threads in [1, 2]]
    variants += [(2, 1, simd) for simd in widths]
    for batch in [1024, 65536]:  # one computed row by row, one id by id
        found = {}
        for ranks, threads, simd in variants:
            result = train(data, f"train.global_batch={batch}", "train.max_steps=10", f"parallel.simd={simd}",
                           ranks=ranks, threads=threads)
            found.setdefault(result["weights_hash"], []).append(f"{ranks} ranks, {threads} threads, {simd}")
        met = len(found) == 1
        report.line(f"batch {batch:,}, hashes of {len(variants)} runs", {"runs_of_hash": found, "met": met},
                    f"{len(found)}", f"1, 2, 3, 4, 8 ranks x 1, 2 threads; {', '.join(widths)}",
                    wanted=f"1: {verdict(met)}")


def bench_order(report, options):
    """What exact order costs: the step beside the same with one buffer a thread, summed as it comes; M samples/s."""
    run("cmake", "--build", PROGRAM.parent, "--target", "bench_steps")
    data = dataset(options.scale)
    for batch in [4096, 16384, 65536]:
        rates = json.loads(run("mpirun", "--oversubscribe", "-np", 2, PROGRAM.parent / "bench" / "bench_steps", data,
                               batch, 3 * options.repeat).output.splitlines()[-1])
        exact, free = ([rate / 1e6 for rate in rates[kind]] for kind in ["exact", "free"])
        report.figure(f"batch {batch:,}, exact order", exact, "", ("free order", free), least=0.9)


def bench_kernels(report, options):
    """The kernels of a step, one thread, beside what the core and its memory can do at most."""
    run("cmake", "--build", PROGRAM.parent, "--target", "bench_kernels")
    found = json.loads(run(PROGRAM.parent / "bench" / "bench_kernels", "--benchmark_format=json").output)
    for kernel in found["benchmarks"]:
        if kernel.get("error_occurred"):
            continue
        name = kernel["name"].split("/")
        rate, unit = next((kernel[key], unit) for key, unit in [
            ("flops", "FLOP/s"), ("items_per_second", "a second"), ("bytes_per_second", "B/s")] if key in kernel)
        report.figure("/".join(part for part in name if not part.isdigit()), [rate / 1e9], f"G {unit}")


def bench_evaluation(report, options):
    """The whole small matrix, all metrics, beside scores, top 100 and one AUC in PyTorch."""
    trained = train(dataset(options.scale), "train.max_steps=10")["evaluation"]
    users = trained["users"]
    seconds, users_seconds, again, orders, torch = [], [], [], [], []
    for _ in range(options.repeat):
        evaluation = kuaitrain("evaluate", RUN)
        seconds.append(evaluation["seconds"])
        parts = evaluation["parts"]
        orders.append(parts["prepare_order"] + parts["order"])
        users_seconds.append(seconds[-1] - orders[-1])
        again.append(parts["score"] + parts["users"])
        torch.append(peer("evaluate.py", "--users", users, "--videos", round(trained["pairs"] / users))["seconds"])
    report.figure(f"{trained['pairs']:,} pairs, all metrics", seconds, "s", ("PyTorch, top 100, AUC", torch))
    report.figure("  scores, top K, metrics a user", users_seconds, "s", most=0.2)
    report.figure("    the same when labels are prepared", again, "s", most=0.2)
    report.figure("  AUC and XAUC over all pairs", orders, "s", most=0.3)


def bench_import(report, options):
    """All seven files, beside polars only reading the three large ones."""
    source = csv_files(options.scale)
    own, polars, memory = [], [], []
    for _ in range(options.repeat):
        polars.append(peer("csv_read.py", *(source / name for name in LARGE))["seconds"])
        finished = import_files(options.scale)
        own.append(finished.seconds)
        memory.append(finished.peak_memory_bytes / 1e6)
    report.figure("seven files", own, "s", ("polars, three files", polars), most=1.5)
    report.figure("  peak memory", memory, "MB")


def bench_memory(report, options):
    """Import, epoch and memory at three scales, and what a million rows cost."""
    scales = [options.scale * part for part in (0.1, 0.3, 1)]
    rows, costs = [], {"import, s": [], "epoch, s": [], "peak memory a rank, MB": []}
    for scale in scales:
        imports = [import_files(scale).seconds for _ in range(options.repeat)]
        results = [train(dataset(scale), epochs=1) for _ in range(options.repeat)]
        epochs = [result["epochs"][0]["seconds"] for result in results]
        memory = [result["peak_memory_bytes"] / 1e6 for result in results]
        rows.append(manifest_of(dataset(scale))["train_rows"] / 1e6)
        for cost, values in zip(costs.values(), [imports, epochs, memory]):
            cost.append(spread(values))
    report.line("scale", {"scales": scales, "million_rows": rows}, "  ".join(f"{scale:g}" for scale in scales),
                "millions of rows " + "  ".join(number(million) for million in rows))
    for what, cost in costs.items():
        each = [value["median"] / million for value, million in zip(cost, rows)]
        report.line(what, {"values": cost}, "  ".join(number(value["median"]) for value in cost),
                    "a million rows " + "  ".join(number(value) for value in each))
    report.figure("peak memory a rank, largest scale", memory, "MB", most=370)
    planned = plan(dataset(scale))["memory"]["needed_bytes"] / 2 / 1e6
    report.figure("  beside what was planned", memory, "MB", ("plan", [planned] * options.repeat))


def bench_start(report, options):
    """What a process needs before any data: seconds to its end, and memory; libtorch is loaded by nobody of these."""
    source = WORK / "start.csv"
    source.write_text("user,video,ratio\n" + "".join(f"{k % 50},{k % 7},{k % 9 / 4}\n" for k in range(1000)))
    data, run_dir = WORK / "start", WORK / "start-run"
    commands = {
        "--help": ["--help"],
        "validate": ["validate", ROOT / "configs" / "ncf.yaml"],
        "import, 1,000 rows": ["import", source, "--map", "user=user,item=video,label=ratio", "--out", data],
        "train, a step of one rank": ["train", f"data.path={data}", f"run.dir={run_dir}", "model.content=none",
                                      "train.max_steps=1", "checkpoint.best=none"],
    }
    for what, command in commands.items():
        seconds, memory = [], []
        for _ in range(5 * options.repeat):
            for folder in [data] if command[0] == "import" else [run_dir]:
                shutil.rmtree(folder, ignore_errors=True)
            finished = run(PROGRAM, *command, "--quiet")
            seconds.append(1e3 * finished.seconds)
            memory.append(finished.peak_memory_bytes / 1e6)
        report.figure(what, seconds, "ms", most=50)
        report.figure("  peak memory", memory, "MB", most=30)


def bench_tables(report, options):
    """10 million users of three rows each and a million videos, times the scale: import, a few steps, one hash."""
    users, items = round(1e7 * options.scale), round(1e6 * options.scale)
    table, data = WORK / f"table-{options.scale:g}.csv", WORK / f"table-{options.scale:g}"
    if not table.exists():
        part = table.with_suffix(".part")
        spread_table(part, users, items, rows_of_user=3)
        part.rename(table)
    shutil.rmtree(data, ignore_errors=True)
    finished = run(PROGRAM, "import", table, "--map", "user=user,item=video,label=ratio", "--out", data, "--quiet")
    report.figure(f"import of {3 * users:,} rows", [finished.seconds], "s")
    report.figure("  peak memory", [finished.peak_memory_bytes / 1e9], "GB")
    overrides = ["model.content=none", "train.global_batch=65536", "train.max_steps=3", "checkpoint.best=none"]
    hashes, before = set(), None
    for ranks in [1, 2, 4]:
        result = train(data, *overrides, ranks=ranks)
        hashes.add(result["weights_hash"])
        memory = [result["peak_memory_bytes"] / 1e9]
        report.figure(f"peak memory a rank, {ranks} ranks", memory, "GB",
                      ("half as many ranks", before) if before else None, most=0.6 if before else None)
        before = memory
    met = len(hashes) == 1
    report.line("hashes of 1, 2, 4 ranks", {"hashes": sorted(hashes), "met": met}, f"{len(hashes)}",
                wanted=f"1: {verdict(met)}")


STEP_PARTS = ["input", "compute", "communication", "update"]  # of result.json's seconds


def bench_systems(report, options):
    """Systems over whole matrices, beside implicit, NumPy and PyTorch on the same pairs: seconds; memory a rank."""
    data, table = dataset(options.scale), csv_files(options.scale) / "big_matrix.csv"

    def fit(config, *overrides, epochs):
        return train(data, "--config", ROOT / "configs" / f"{config}.yaml", "data.validation.fraction=0", *overrides,
                     epochs=epochs)

    def memory(result):
        return result["peak_memory_bytes"] / 1e6

    own = {"als": [], "als blocks": [], "ease": [], "autoencoder": [], "lightgcn": []}
    used = {name: [] for name in own}
    other = {name: [] for name in ["als", "als exact", "ease", "autoencoder", "lightgcn"]}
    for _ in range(options.repeat):
        for name, overrides in [("als", []), ("als blocks", ["model.block=16"])]:
            result = fit("als", *overrides, epochs=4)
            own[name].append(statistics.mean(epoch["seconds"] for epoch in result["epochs"][1:]))
            used[name].append(memory(result))
        implicit = peer("als_implicit.py", table)
        other["als"].append(implicit["cg"])
        other["als exact"].append(implicit["exact"])
        result = fit("ease", "model.input=binary", "model.regularization=500", epochs=1)
        own["ease"].append(result["epochs"][0]["seconds"] + result["evaluation"]["parts"]["score"])
        used["ease"].append(memory(result))
        other["ease"].append(peer("ease_numpy.py", table)["seconds"])
        result = fit("autoencoder_reference", epochs=3)
        own["autoencoder"].append(statistics.mean(epoch["seconds"] for epoch in result["epochs"][1:]))
        used["autoencoder"].append(memory(result))
        other["autoencoder"].append(peer("autoencoder_torch.py", table)["seconds"])
        result = fit("lightgcn", "train.max_steps=4", "checkpoint.best=none", epochs=1)
        own["lightgcn"].append(sum(result["seconds"][part] for part in STEP_PARTS) / result["steps"])
        used["lightgcn"].append(memory(result))
        other["lightgcn"].append(peer("lightgcn_torch.py", table)["seconds"])
    report.figure("als, 64 factors, a sweep", own["als"], "s", ("implicit, Cholesky", other["als exact"]), most=1)
    report.figure("als, 64 factors, a sweep", own["als"], "s", ("implicit, 3 CG steps", other["als"]))
    report.figure("als, 16 of 64 at a time, a sweep", own["als blocks"], "s", ("implicit, 3 CG steps", other["als"]),
                  most=1)
    report.figure("ease, and scores of test users", own["ease"], "s", ("NumPy", other["ease"]), most=1.2)
    report.figure("autoencoder, an epoch", own["autoencoder"], "s", ("PyTorch", other["autoencoder"]), most=1)
    report.figure("lightgcn, a step", own["lightgcn"], "s", ("PyTorch", other["lightgcn"]), most=1)
    for name, values in used.items():
        report.figure(f"  peak memory a rank, {name}", values, "MB", most=3000)


def bench_fields(report, options):
    """Systems of all categories on 8 shards, M samples/s, beside the same in PyTorch DDP, 2 processes; memory a rank."""
    data = dataset(options.scale, shards=8)
    counts = manifest_of(data)
    models = {"dlrm": ("dlrm", [], 5), "dcn_v2": ("dcn_v2", [], None),
              "dcn_v2_whole": ("dcn_v2", ["model.cross.rank=0"], 1.5)}
    for name, (config, overrides, least) in models.items():
        for batch in [4096, 16384]:
            own, memory, ddp = [], [], []
            for _ in range(options.repeat):
                result = train(data, "--config", ROOT / "configs" / f"{config}.yaml", f"train.global_batch={batch}",
                               f"train.max_steps={(1 << 19) // batch}", "evaluate.bootstrap=0", *overrides, epochs=1)
                own.append(result["steps"] * batch / result["seconds"]["train"] / 1e6)
                memory.append(result["peak_memory_bytes"] / 1e6)
                ddp.append(peer("cpu_fields_torch.py", "ddp", "--model", name, "--global-batch", batch, "--rows",
                                result["dataset"]["rows_train"], "--users", counts["users"], "--videos",
                                counts["items"], processes=2)["samples_per_second"] / 1e6)
            report.figure(f"{name}, batch {batch:,}", own, "", ("PyTorch DDP", ddp),
                          least=least if batch == 16384 else None)
            report.figure("  peak memory a rank", memory, "MB")


# Found by a search at scale 1 over rate, schedule and length of the warm-up.
QUALITY = {1024: [], 4096: [], 16384: ["train.optimizer.lr=2e-3", "train.schedule.warmup_steps=100"]}


def bench_quality(report, options):
    """Validation error after two epochs, seed by seed beside the batch of 1,024."""
    data = dataset(options.scale)
    found = {batch: [] for batch in QUALITY}
    for seed in range(1, options.repeat + 1):
        for batch, overrides in QUALITY.items():
            result = train(data, f"train.global_batch={batch}", f"train.seed={seed}", *overrides)
            found[batch].append(result["epochs"][-1]["validation"])
    for metric in ["mse", "mae"]:
        values = {batch: [validation[metric] for validation in each] for batch, each in found.items()}
        first = values.pop(1024)
        for batch, each in values.items():
            report.figure(f"batch {batch:,}, {metric}", each, "", ("batch 1,024", first), most=1.01)


PARTS = {"train": (bench_train, [*PYTORCH, *JAX]), "scaling": (bench_scaling, []), "bits": (bench_bits, []),
         "order": (bench_order, []), "kernels": (bench_kernels, []),
         "evaluation": (bench_evaluation, PYTORCH), "import": (bench_import, POLARS), "memory": (bench_memory, []),
         "start": (bench_start, []), "tables": (bench_tables, []),
         "quality": (bench_quality, []), "systems": (bench_systems, MATRICES), "fields": (bench_fields, PYTORCH)}


# --- Start -----------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"bench: {message}\n")


def above_zero(kind):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not value > 0:
            raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
        return value
    return parse


def part_names(text):
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"no part {name!r}; expected some of {','.join(PARTS)}")
    return [name for name in PARTS if name in names]


def parse_options():
    parts = "\n".join(f"  {name:11} {function.__doc__}" for name, (function, _) in PARTS.items())
    parser = Parser(prog="bench/run", formatter_class=argparse.RawDescriptionHelpFormatter,
                    description="Measures kuaitrain beside its peers, in one go.", epilog=f"parts:\n{parts}")
    parser.add_argument("--scale", type=above_zero(float), default=1.0, help="of the synthetic data (default 1)")
    parser.add_argument("--repeat", type=above_zero(int), default=3, help="times; the median counts (default 3)")
    parser.add_argument("--only", type=part_names, default=list(PARTS), metavar="PART[,PART]", help="default: all")
    return parser.parse_args()


def set_up(parts):
    """The program, and what the parts want from PyPI, in an environment of their own."""
    subprocess.run([ROOT / "launch" / "setup.sh", "--program-only", "release"], check=True, stdout=sys.stderr)
    wanted = sorted({package for part in parts for package in PARTS[part][1]})
    python = VENV / "bin" / "python"
    if wanted and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], check=True)
    if wanted:  # pip asks nobody for what is there
        print(f"== {' '.join(wanted)} from PyPI", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *wanted], check=True)


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        set_up(options.only)
        about = machine(options)
        print("kuaitrain {commit}, {date}, {cpus} x {cpu}, load {load:.1f}\nsynthetic data of scale {scale:g}; median "
              "(smallest-largest) of {repeat}; 2 ranks of 1 thread where nothing else is said; limits are for scale 1"
              .format(**about))
        report = Report(about)
        for part in options.only:
            measure = PARTS[part][0]
            report.begin(part, measure.__doc__)
            measure(report, options)
            report.end()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: exit {error.returncode}: {' '.join(map(str, error.cmd))}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    print(f"kept in {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
