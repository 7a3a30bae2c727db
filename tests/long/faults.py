"""Operations that fail, once or for good, with an error of the disk; full and read-only disks; slow ones."""
import errno
import os
import subprocess

from jobs import DONE, USER, Harm, Trial, last_words, on
from kills import MAKING, copy_run, making, same_tree

FAULTS = 300
OUTPUTS = 40
SIZES_KB = (64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS)
SLOW_TIMEOUT_S, SLOW_MS = 2, 3000


def trials(bench):
    found = []
    operations = {ranks: bench.operations(f"faults-{ranks}", lambda case: [(ranks, case.arguments())], "run")
                  for ranks in (1, 2, 3)}
    generator = bench.random("faults")
    for k in range(FAULTS):
        ranks = 1 + k % 3
        rank, number, kind, path = generator.choice(operations[ranks])
        found.append(failing(ranks, rank, number, kind, path, ERRORS[k // 3 % 3], k % 2 == 0, k % 5 == 0))
    for command in ("import", "synth"):
        arguments = lambda case, command=command: [(1, making(bench, command, case.folder / "run" / "made"))]
        all_of = bench.operations(f"faults-{command}", arguments, "run", lambda folder: (folder / "run").mkdir())
        for k, (_, number, kind, path) in enumerate(all_of[::len(all_of) // MAKING + 1]):
            found.append(failing_to_make(command, number, kind, path, ERRORS[k % 3], k % 2 == 0))
    for k in range(OUTPUTS):
        found.append(failing_output("evaluate" if k % 2 else "recommend", 1 + k // 2 % 8, ERRORS[k // 16 % 3]))
    for size_kb in SIZES_KB:
        for ranks in (1, 2, 3):
            found.append(small_disk(ranks, size_kb))
    for ranks in (1, 2, 3):
        found += [read_only(ranks, half) for half in (False, True)]
        found += [slow(ranks, kind, number) for kind, number in (("fsync", 12), ("write", 20), ("rename", 6))]
    return found


def refused(case, ended, path):
    """Success, or exit 2 with a message that names what could not be written."""
    case.injured(ended, {DONE, USER})
    if ended.code == USER and str(path) not in ended.err + ended.out:
        case.find("other", f"the message does not name {path}: {last_words(ended)}")


def failing(ranks, rank, number, kind, path, error, for_good, resumed):
    def work(case):
        if resumed:
            copy_run(case.bench.half(), case.folder)
        ended = case.train(ranks, Harm(f"errno={error}{'+' if for_good else ''}:any:{number}", rank))
        refused(case, ended, case.folder / "run")
        if ended.code == DONE:
            case.check_result(ended)
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}{', resumed' if resumed else ''}: {errno.errorcode[error]} {'from' if for_good else 'at'} "
                 f"operation {number} of rank {rank} {'on' if for_good else ''} ({kind} {path})", work)


def failing_to_make(command, number, kind, path, error, for_good):
    def work(case):
        folder = case.folder / "run"
        folder.mkdir()
        arguments = making(case.bench, command, folder / "made")
        ended = case.start([(1, arguments)], Harm(f"errno={error}{'+' if for_good else ''}:any:{number}")).wait()
        refused(case, ended, folder)
        # What fails for good cannot be tidied up either.
        if ended.code == USER and not for_good and os.listdir(folder) not in ([], ["made"]):
            case.find("other", f"left behind: {os.listdir(folder)}")
        if not (folder / "made").exists():
            case.expect(case.start([(1, arguments)]).wait(), {DONE})
        if not same_tree(folder / "made", case.bench.work / "bench" / ("plain" if command == "import" else "source")):
            case.find("wrong", f"{command} made something else")
    return Trial(f"{command}: {errno.errorcode[error]} {'from' if for_good else 'at'} operation {number} ({kind} {path})", work)


def failing_output(command, number, error):
    def work(case):
        out = case.folder / "out.csv"
        more = ["--scores", out] if command == "evaluate" else ["--all-users", "--out", out]
        arguments = [command, case.bench.whole(), *more]
        whole = case.start([(1, arguments)]).wait()
        case.expect(whole, {DONE})
        expected = out.read_bytes()
        out.unlink()
        ended = case.start([(1, arguments)], Harm(f"errno={error}:any:{number}"), case.folder).wait()
        refused(case, ended, case.folder)  # a folder that cannot be synced is named itself
        if out.exists() and out.read_bytes() != expected:
            case.find("wrong", "a part of an output is left")
        if ended.code == DONE and not out.exists():
            case.find("wrong", "exit 0 without the output")
    return Trial(f"{command}: {errno.errorcode[error]} at operation {number} on its output", work)


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


class Disk:
    """A file system of its own at the run folder."""

    def __init__(self, case, options):
        self.folder = case.folder / "run"
        self.folder.mkdir()
        mount("-t", "tmpfs", "-o", options, "kt-long", self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.folder], check=False, capture_output=True)

    def remount(self, options):
        mount("-o", f"remount,{options}", self.folder)


def needs_root(work):
    def only_as_root(case):
        if os.geteuid() != 0:
            case.skipped = "only root may mount"
            return
        work(case)
    return only_as_root


def small_disk(ranks, size_kb):
    @needs_root
    def work(case):
        with Disk(case, f"size={size_kb}k") as disk:
            ended = case.train(ranks)
            refused(case, ended, disk.folder)
            disk.remount("size=16m")
            case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: a disk of {size_kb} kB, then with room", work)


def read_only(ranks, half):
    @needs_root
    def work(case):
        with Disk(case, "size=16m") as disk:
            if half:
                subprocess.run(["cp", "-a", f"{case.bench.half()}/.", disk.folder], check=True)
            disk.remount("ro")
            ended = case.train(ranks)
            case.injured(ended, {USER})
            disk.remount("rw")
            case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: a read-only folder, {'of a run' if half else 'empty'}, then writable", work)


def slow(ranks, kind, number):
    def work(case):
        more = [f"parallel.timeout_s={SLOW_TIMEOUT_S}"]
        ended = case.train(ranks, Harm(f"sleep={SLOW_MS}:{kind}:{number}", 0), more)
        case.injured(ended, {DONE})
        if ended.code == DONE:
            case.check_run(ended)
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: {kind} {number} takes {SLOW_MS} ms, the time-out is {SLOW_TIMEOUT_S} s", work)
