"""Signals to mpirun, to one rank and to a process without mpirun, at moments spread over a run's life."""
import signal
import time

from jobs import DONE, KILLED, REQUESTED, Harm, Trial, on

MOMENTS = 40
SAVING = (signal.SIGUSR2, signal.SIGUSR1)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Of a process that has not come to its main function, or has just done so, nobody can ask to answer.
STARTING_NS = 50_000_000


def trials(bench):
    found = []
    for k in range(MOMENTS):
        for number in SAVING + ENDING:
            for who, ranks in (("mpirun", 2 + k % 2), ("a rank", 2 + k % 2), ("the process", 1)):
                found.append(signalled(number, who, ranks, k))
    return found


def signalled(number, who, ranks, k):
    def work(case):
        generator = case.bench.random("signals", case.folder.name)
        job = case.start([(ranks, case.arguments())], Harm(trace=True), direct=who == "the process")
        time.sleep((k + generator.random()) / MOMENTS * case.bench.seconds)
        sent_ns = time.monotonic_ns()
        chosen = generator.choice(job.ranks() or [None]) if who == "a rank" else job.process.pid
        if chosen:
            job.signal(number, chosen)
        ended = job.wait()
        codes = {DONE, REQUESTED}
        operations, mains = job.traced()
        if len(mains) < ranks or sent_ns < max(mains.values()) + STARTING_NS:
            codes |= {128 + number, KILLED, 1}
        if who == "mpirun" and (number in ENDING or ended.by_signal and not operations):
            codes |= {1, 128 + number, KILLED} | ({ended.code} if ended.by_signal else set())  # its own answer
        case.injured(ended, codes)
        if ended.code == DONE:
            case.check_run(ended)
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{number.name} to {who} after {100 * k / MOMENTS:.0f} % of the time, {on(ranks)}", work)
