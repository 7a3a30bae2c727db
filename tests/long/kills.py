"""A rank killed before each operation on 1, 2 and 3 ranks; ranks, jobs and mpirun killed at random; ranks suspended."""
import filecmp
import os
import shutil
import signal
import time

from jobs import DONE, KILLED, PEER, Harm, Trial, error_lines, on

RANDOM = 60  # of each kind
MAKING = 50  # of import and of synth, at most
STOPS = 24
STOP_TIMEOUT_S = 2


def trials(bench):
    found = []
    for ranks in (1, 2, 3):
        for rank, number, kind, path in bench.operations(f"fresh-{ranks}", lambda case: [(ranks, case.arguments())], "run"):
            if not path.endswith("log.txt"):  # nobody reads it
                found.append(killed_at(ranks, rank, number, kind, path, None))
    for ranks in (1, 2):
        half = bench.half()
        copy = lambda folder: copy_run(half, folder)
        for rank, number, kind, path in bench.operations(f"half-{ranks}", lambda case: [(ranks, case.arguments())], "run",
                                                         copy):
            found.append(killed_at(ranks, rank, number, kind, path, half))
    for command in ("import", "synth"):
        arguments = lambda case, command=command: [(1, making(bench, command, case.folder / "run" / "made"))]
        all_of = bench.operations(command, arguments, "run", lambda folder: (folder / "run").mkdir())
        for _, number, kind, path in all_of[::len(all_of) // MAKING + 1]:
            found.append(killed_making(command, number, kind, path))
    for k in range(RANDOM):
        for who in ("a rank", "all ranks", "mpirun"):
            found.append(killed_at_random(who, 1 + k % 3))
    for k in range(STOPS):
        found.append(stopped(2 + k % 2))
        found.append(paused(1 + k % 3))
    return found


def copy_run(source, folder):
    shutil.copytree(source, folder / "run", symlinks=True)


def killed_at(ranks, rank, number, kind, path, half):
    def work(case):
        if half:
            copy_run(half, case.folder)
        ended = case.train(ranks, Harm(f"kill:any:{number}", rank))
        case.injured(ended, {KILLED, PEER})
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}{', resumed' if half else ''}: rank {rank} before its operation {number}, {kind} {path}", work)


def making(bench, command, out):
    return bench.import_arguments(out) if command == "import" else ["synth", "--scale", ".002", "--out", out]


def same_tree(a, b):
    compared = filecmp.dircmp(a, b, ignore=[])
    return (not compared.left_only and not compared.right_only
            and not filecmp.cmpfiles(a, b, compared.common_files, shallow=False)[1]
            and all(same_tree(a / name, b / name) for name in compared.common_dirs))


def killed_making(command, number, kind, path):
    def work(case):
        folder = case.folder / "run"
        folder.mkdir()
        arguments = making(case.bench, command, folder / "made")
        case.injured(case.start([(1, arguments)], Harm(f"kill:any:{number}")).wait(), {KILLED})
        if not (folder / "made").exists():  # else it had its name already: whole
            case.expect(case.start([(1, arguments)]).wait(), {DONE})
        if not same_tree(folder / "made", case.bench.work / "bench" / ("plain" if command == "import" else "source")):
            case.find("wrong", f"{command} made something else")
        for name in os.listdir(folder):
            if name != "made":
                case.find("other", f"left behind: {name}")
    return Trial(f"{command} before its operation {number}, {kind} {path}", work)


def moment(case):
    """Some moment of a job's life, the first tenth of a second (of loading) less often."""
    generator = case.bench.random("kills", case.folder.name)
    return generator, generator.uniform(.1, case.bench.seconds)


def killed_at_random(who, ranks):
    def work(case):
        generator, wait_s = moment(case)
        job = case.start([(ranks, case.arguments())], direct=False)
        time.sleep(wait_s)
        alive = job.ranks()
        if who == "mpirun":
            job.signal(signal.SIGKILL)
        else:
            for process in alive if who == "all ranks" else generator.sample(alive, min(1, len(alive))):
                job.signal(signal.SIGKILL, process)
        ended = job.wait()
        case.injured(ended, {DONE, KILLED, PEER})
        if ended.code == DONE:
            case.check_run(ended)
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: {who} at a random moment", work)


def stopped(ranks):
    def work(case):
        generator = case.bench.random("kills", case.folder.name)
        rank = generator.randrange(ranks)
        # Late enough that all ranks know the time-out.
        number = generator.randrange(30, 150) if rank == 0 else generator.randrange(1, 20)
        more = [f"parallel.timeout_s={STOP_TIMEOUT_S}"]
        ended = case.train(ranks, Harm(f"stop:any:{number}", rank), more, limit_s=STOP_TIMEOUT_S + 20)
        case.injured(ended, {PEER})
        if ended.code == PEER and not error_lines(ended):
            case.find("other", "exit 75 without a message")
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: one is suspended for good", work)


def paused(ranks):
    def work(case):
        generator, wait_s = moment(case)
        job = case.start([(ranks, case.arguments())], direct=False)
        time.sleep(wait_s)
        chosen = generator.sample(job.ranks(), min(1, len(job.ranks())))
        for process in chosen:
            job.signal(signal.SIGSTOP, process)
        time.sleep(.3)
        for process in chosen:
            job.signal(signal.SIGCONT, process)
        ended = job.wait()
        case.injured(ended, {DONE})
        if ended.code == DONE:
            case.check_run(ended)
    return Trial(f"{on(ranks)}: one is suspended for .3 s", work)
