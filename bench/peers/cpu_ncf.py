"""What the peers on a CPU share: their options, and how their training is timed. Not a program of its own."""
import argparse
import json

STEPS = 20  # between two looks at the clock


def parse_options(doc, forms=(), models=()):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if forms:
        parser.add_argument("form", choices=forms)
    if models:
        parser.add_argument("--model", choices=models, required=True)
    parser.add_argument("--global-batch", type=int, required=True)
    parser.add_argument("--rows", type=int, default=10_400_000)
    parser.add_argument("--users", type=int, default=7_176)
    parser.add_argument("--videos", type=int, default=10_728)
    parser.add_argument("--seconds", type=float, default=6, help="measured at least (default 6)")
    options = parser.parse_args()
    if options.global_batch <= 0 or options.seconds <= 0:
        parser.error(f"--global-batch, --seconds: got {options.global_batch}, {options.seconds}, expected numbers above 0")
    if options.rows < options.global_batch:
        parser.error(f"--rows: {options.rows} are fewer than a batch of {options.global_batch}")
    return options


def measure(training, options):
    """training.take(STEPS) takes steps and returns their seconds and losses. The first are not counted: caches are warm
    and compilers are done after them. Returns: what a peer prints, with the loss of the first step and the mean of the
    last ones."""
    _, first = training.take(STEPS)
    seconds = steps = 0
    while seconds < options.seconds:
        more, last = training.take(STEPS)
        seconds += more
        steps += STEPS
    return json.dumps({"global_batch": options.global_batch, "steps": steps,
                       "samples_per_second": steps * options.global_batch / seconds,
                       "first_loss": float(first[0]), "last_loss": float(sum(last) / STEPS)})
