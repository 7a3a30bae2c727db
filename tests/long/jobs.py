"""Runs jobs of the program under injuries, and judges how they end. Standard library alone."""
import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 90  # of a job of less than a second: more is a hang
LEFT_BEHIND_S = 20  # for the processes of a job to end after it
SHARDS = 8
DONE, USER, BUG, PEER, REQUESTED, KILLED = 0, 2, 70, 75, 85, 128 + signal.SIGKILL

CONFIG = """\
model: {content: none}
train: {epochs: 12, global_batch: 64, optimizer: {lr: 5e-2}, early_stop: {metric: mse, patience: 3}}
checkpoint: {every_steps: 6, best: mse, keep: 2}
evaluate: {every: 2, k: [3, 5], checkpoint: best}
log: {every_steps: 4}
parallel: {timeout_s: 20}
"""
CONTENT_CONFIG = """\
model: {content: daily}
train: {epochs: 2, global_batch: 1024, optimizer: {lr: 5e-3}}
checkpoint: {every_steps: 6, best: mse, keep: 2}
evaluate: {k: [3, 5]}
log: {every_steps: 3}
parallel: {timeout_s: 20}
"""


@dataclasses.dataclass
class Trial:
    """One injury. `work` gets the Case that it is tried in."""
    name: str
    work: object
    number: int = 0


@dataclasses.dataclass
class Ended:
    code: int  # -1: it hung
    out: str
    err: str
    by_signal: bool = False  # what was started (mpirun, or the program itself) died by a signal


@dataclasses.dataclass
class Harm:
    """What the preloaded library does (tests/long/injure.c), and to which rank (none: all)."""
    action: str = ""
    rank: int | None = None
    trace: bool = False


def on(ranks):
    return f"{ranks} rank{'s' if ranks > 1 else ''}"


def outcome(result):
    """What of a result.json ranks, threads and interruptions must not change: to the last bit."""
    kept = {key: result[key] for key in ("weights_hash", "steps", "updates", "bad_steps", "stopped_early", "parameters")}
    kept["dataset"] = result["dataset"]["hash"]
    kept["epochs"] = [without(epoch, "seconds", "samples_per_second") for epoch in result["epochs"]]
    kept["evaluation"] = without(result["evaluation"], "seconds", "parts")
    return kept


def without(document, *keys):
    return {key: value for key, value in document.items() if key not in keys}


def differences(got, expected):
    return ", ".join(f"{key} {str(got.get(key))[:80]} instead of {str(expected.get(key))[:80]}"
                     for key in expected if got.get(key) != expected[key])


def metrics_lines(folder):
    """metrics.jsonl less what depends on time. A run may be asked to evaluate once more: of those lines, the last."""
    lines = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        lines.append(without(json.loads(line), "seconds", "samples_per_second"))
    return lines


def error_lines(ended):
    return [line for line in (ended.err + ended.out).splitlines() if re.match(r"(\[rank \d+\] )?error: ", line)]


def last_words(ended):
    return (error_lines(ended) or (ended.err + ended.out).strip().splitlines() or ["(no message)"])[-1][:300]


def processes_of(session):
    """Those of a session that have not ended. The end of an orphan may never be collected: it does not count."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(entry.name))
    return found


class Job:
    """A command on some ranks, in a session of its own."""

    def __init__(self, bench, folder, name, applications, harm, under, direct):
        if bench.closing:
            raise InterruptedError
        self.bench, self.folder, self.name = bench, folder, name
        self.trace = folder / f"{name}.trace"
        variables = {}
        if harm:
            variables = {"LD_PRELOAD": bench.shim, "KT_INJURE_UNDER": under}
            if harm.trace:
                variables["KT_INJURE_TRACE"] = self.trace
            if harm.action:
                variables["KT_INJURE"] = harm.action
            if harm.rank is not None:
                variables["KT_INJURE_RANK"] = harm.rank
        variables = {key: str(value) for key, value in variables.items()}
        own = tempfile.mkdtemp(dir=bench.short)  # of Open MPI's sockets and shared memory
        environment = {**bench.environment, "TMPDIR": own}
        if direct:
            environment.update(variables)
            command = [bench.program, *applications[0][1]]
        else:
            command = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "plm", "isolated",
                       "--mca", "btl_vader_backing_directory", own]
            for k, (ranks, arguments) in enumerate(applications):
                command += ([":"] if k else []) + ["-np", ranks]
                for key, value in variables.items():
                    command += ["-x", f"{key}={value}"]
                command += [bench.program, *arguments]
        command = [str(part) for part in command]
        shown = " ".join(f"{key}={value}" for key, value in (variables if direct else {}).items())
        with open(folder / "commands", "a") as file:
            file.write(f"{shown} {shlex.join(command)}\n".lstrip())
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self.begin_ns = time.monotonic_ns()
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=folder,
                                            env=environment, start_new_session=True)
        bench.running.add(self)

    def ranks(self):
        """The processes of the program."""
        found = []
        for process in processes_of(self.process.pid):
            try:
                if os.readlink(f"/proc/{process}/exe") == str(self.bench.program):
                    found.append(process)
            except OSError:
                pass
        return sorted(found)

    def signal(self, number, process=None):
        try:
            os.kill(process or self.process.pid, number)
        except ProcessLookupError:
            pass

    def kill(self):
        """Whether there was something left of it."""
        left = processes_of(self.process.pid)
        for process in left:
            self.signal(signal.SIGKILL, process)
        return bool(left)

    def wait(self, limit_s=LIMIT_S):
        try:
            self.process.wait(limit_s)
            end = time.monotonic() + LEFT_BEHIND_S
            while processes_of(self.process.pid) and time.monotonic() < end:
                time.sleep(.01)
        except subprocess.TimeoutExpired:
            pass
        finally:
            hung = self.kill()
            self.process.wait()
            self.bench.running.discard(self)
        code = self.process.returncode
        return Ended(-1 if hung else code if code >= 0 else 128 - code, self.out.read_text(errors="replace"),
                     self.err.read_text(errors="replace"), code < 0)

    def traced(self):
        """(rank, number, kind, path) of each operation; when the main of each rank began, by rank."""
        operations, mains = [], {}
        for line in self.trace.read_text().splitlines() if self.trace.exists() else []:
            rank, number, rest = line.split(" ", 2)
            if number == "main":
                mains[int(rank)] = int(rest)
            else:
                kind, _, path = rest.partition(" ")
                operations.append((int(rank), int(number), kind, path))
        return operations, mains


class Case:
    """A trial at work: its folder, and what was found."""

    def __init__(self, bench, folder):
        self.bench, self.folder = bench, folder
        self.codes = []  # of the injured job
        self.findings = []  # (column, text)
        self.skipped = None  # why the trial cannot be tried here
        self.jobs = 0
        folder.mkdir(parents=True)

    def find(self, column, text):
        self.findings.append((column, text))

    def start(self, applications, harm=None, under=None, direct=None):
        """`applications`: [(ranks, arguments)]; one of a single rank needs no mpirun."""
        self.jobs += 1
        if direct is None:
            direct = len(applications) == 1 and applications[0][0] == 1
        return Job(self.bench, self.folder, str(self.jobs), applications, harm, under or self.folder / "run", direct)

    def arguments(self, more=(), data="plain", run="run"):
        return ["train", "--json", "--config", self.bench.config(data), f"data.path={self.bench.data(data)}",
                f"run.dir={self.folder / run}", *more]

    def train(self, ranks, harm=None, more=(), data="plain", limit_s=LIMIT_S):
        return self.start([(ranks, self.arguments(more, data))], harm).wait(limit_s)

    def injured(self, ended, codes):
        """Notes how the injured job ended."""
        self.codes.append(ended.code)
        self.expect(ended, codes)

    def expect(self, ended, codes):
        if ended.code == -1:
            self.find("hang", "it does not end, or leaves processes behind")
        elif ended.code not in codes:
            self.find("other", f"exit {ended.code}, expected {' or '.join(map(str, sorted(codes)))}: {last_words(ended)}")
        elif ended.code == USER and not error_lines(ended):
            self.find("other", "exit 2 without a message")
        if "report it" in ended.err + ended.out and ended.code != BUG:
            self.find("other", "it asks to report a bug")

    def goes_on(self, ranks, more=(), data="plain", codes=(DONE,)):
        """The same command again, uninjured, ends with the result of a run that nothing happened to."""
        ended = self.train(ranks, more=more, data=data)
        self.expect(ended, set(codes))
        if ended.code == DONE:
            self.check_run(ended, data)
        return ended

    def check_result(self, ended, data="plain", run="run"):
        expected = self.bench.expected[data]
        for place, text in ((f"{run}/result.json", (self.folder / run / "result.json").read_text()), ("stdout", ended.out)):
            try:
                difference = differences(outcome(json.loads(text)), expected)
            except (ValueError, KeyError, TypeError) as error:
                self.find("wrong", f"{place}: exit 0 without a result: {type(error).__name__} {error}")
                continue
            if difference:
                self.find("wrong", f"{place}: {difference}")

    def check_run(self, ended, data="plain"):
        self.check_result(ended, data)
        run = self.folder / "run"
        for path in run.rglob("*"):
            if ".tmp" in path.name:
                self.find("other", f"left behind: {path.relative_to(run)}")
        got, expected = metrics_lines(run), self.bench.expected_metrics[data]
        if got != expected:
            short = lambda lines: collections.Counter((line.get("kind"), line.get("step")) for line in lines)
            more, less = short(got) - short(expected), short(expected) - short(got)
            other = [f"{line['kind']} of step {line['step']}" for line, wanted in zip(got, expected) if line != wanted]
            self.find("other", f"metrics.jsonl: {dict(more)} too many, {dict(less)} too few" if more or less else
                      f"metrics.jsonl: other values in {', '.join(other)}")
        newest = max((path.name for path in (run / "checkpoints").glob("step-*")), default="")
        if os.readlink(run / "latest") != f"checkpoints/{newest}":
            self.find("other", f"latest points to {os.readlink(run / 'latest')}, the newest is {newest}")


class Bench:
    """The program, its data, and the results of runs that nothing happens to."""

    def __init__(self, program, shim, work, seed):
        self.program, self.shim, self.work, self.seed = program, shim, work, seed
        memory = pathlib.Path("/dev/shm")
        self.short = tempfile.mkdtemp(prefix="kt-long-", dir=memory if os.access(memory, os.W_OK) else None)
        self.environment = {key: value for key, value in os.environ.items()
                            if not key.startswith(("OMPI_", "PMIX_", "KT_INJURE"))}
        self.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                                OMPI_MCA_mpi_yield_when_idle="1", OMP_NUM_THREADS="1")
        self.expected, self.expected_metrics = {}, {}
        self.seconds = 0  # of the longest of these
        self.answers, self.answering = {}, threading.Lock()
        self.running, self.closing = set(), False

    def close(self):
        self.closing = True
        while self.running:  # after an interrupt
            for job in list(self.running):
                job.kill()
            time.sleep(.05)
        shutil.rmtree(self.short, ignore_errors=True)

    def random(self, *of):
        return random.Random("/".join(map(str, (self.seed, *of))))

    def config(self, data):
        return self.work / "bench" / f"{data}.yaml"

    def data(self, data):
        return self.work / "bench" / data

    def prepare(self, all_ranks):
        """Two data sets, a small table without content and a synthetic replica with it, and whole runs of each, on these
        numbers of ranks."""
        shutil.rmtree(self.work, ignore_errors=True)
        case = Case(self, self.work / "bench")
        for data, text in (("plain", CONFIG), ("content", CONTENT_CONFIG)):
            self.config(data).write_text(text)
        write_tables(case.folder)
        for arguments in (self.import_arguments(case.folder / "plain"),
                          ["synth", "--out", case.folder / "source", "--scale", ".002"],
                          ["import", case.folder / "source", "--out", case.folder / "content", "--shards", SHARDS]):
            self.succeed(case.start([(1, arguments)]).wait())
        for data in ("plain", "content"):
            for ranks in all_ranks:
                # Named as in every other case, so that a copy of it is a run of its own.
                whole = Case(self, self.work / "bench" / f"{data}-{ranks}")
                begin = time.monotonic()
                ended = self.succeed(whole.train(ranks, data=data))
                if data == "plain":
                    self.seconds = max(self.seconds, time.monotonic() - begin)
                self.expected.setdefault(data, outcome(json.loads(ended.out)))
                self.expected_metrics.setdefault(data, metrics_lines(whole.folder / "run"))
                whole.check_run(ended, data)
                if whole.findings:
                    raise SystemExit(f"error: without any injury, {data} data on {ranks} ranks: {whole.findings}")

        half = Case(self, self.half().parent)
        self.succeed(half.train(1, Harm("kill:rename:14", 0)), KILLED)

    def succeed(self, ended, code=DONE):
        if ended.code != code:
            raise SystemExit(f"error: before any trial: exit {ended.code}, expected {code}\n{ended.out}{ended.err}")
        return ended

    def whole(self, data="plain", ranks=1):
        """The folder of a run that nothing happened to."""
        return self.work / "bench" / f"{data}-{ranks}" / "run"

    def half(self):
        """The folder of a run that was killed in the middle, before a checkpoint got its name."""
        return self.work / "bench" / "half" / "run"

    def answer(self, *arguments):
        """What a command says when nothing happened."""
        with self.answering:
            if arguments not in self.answers:
                case = Case(self, self.work / "bench" / f"answer-{len(self.answers)}")
                self.answers[arguments] = self.succeed(case.start([(1, arguments)]).wait()).out
            return self.answers[arguments]

    def import_arguments(self, out):
        bench = self.work / "bench"
        return ["import", bench / "ratings.csv", "--map", "user=user,item=item,label=label,time=time", "--test",
                bench / "held_out.csv", "--shards", SHARDS, "--out", out]

    def operations(self, name, applications, under, prepare=lambda folder: None):
        """Those of an uninjured job, in order: what there is to be injured."""
        case = Case(self, self.work / "bench" / f"traced-{name}")
        prepare(case.folder)
        job = case.start(applications(case), Harm(trace=True), case.folder / under)
        self.succeed(job.wait())
        return [(rank, number, kind, os.path.relpath(path, case.folder)) for rank, number, kind, path in job.traced()[0]]


def write_tables(folder):
    generator = random.Random(7)
    label = lambda user, item: (3 * user + 2 * item + generator.randrange(3)) % 5 + 1
    with open(folder / "ratings.csv", "w") as file:
        file.write("user,item,label,time\n")
        for k in range(600):
            user, item = generator.randrange(24), generator.randrange(30)
            file.write(f"u{user},i{item},{label(user, item)},{1600000000 + 60 * k}\n")
    with open(folder / "held_out.csv", "w") as file:
        file.write("user,item,label,time\n")
        for user in range(12):
            for item in range(0, 30, 2):
                file.write(f"u{user},i{item},{label(user, item)},1700000000\n")
