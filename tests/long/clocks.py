"""The clock of the day jumps by a year, forward or back, in the middle of a run."""
from jobs import DONE, KILLED, Harm, Trial, on

TRIALS = 60
YEAR_S = 365 * 24 * 3600
# Clocks that a run goes by must not be this one.
MORE = ["run.max_seconds=1000", "checkpoint.every_seconds=1000"]


def trials(bench):
    found = []
    for k in range(TRIALS):
        generator = bench.random("clocks", k)
        found.append(jumped(1 + k % 3, generator.choice((-YEAR_S, YEAR_S)), generator.randrange(1, 90), k % 2 == 0))
    return found


def jumped(ranks, seconds, number, killed):
    def work(case):
        if killed:  # then it goes on in another year
            case.expect(case.train(ranks, Harm(f"kill:any:{number + 90}", 0), MORE), {KILLED})
        ended = case.train(ranks, Harm(f"clock={seconds}:any:{number}", 0), MORE)
        case.injured(ended, {DONE})
        if ended.code == DONE:
            case.check_run(ended)
        case.goes_on(ranks % 3 + 1)
    return Trial(f"{on(ranks)}: the clock of rank 0 jumps by {seconds:+d} s at its operation {number}"
                 f"{', after a kill' if killed else ''}", work)
