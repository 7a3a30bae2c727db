"""Ranks that are told different things: refused by the name of what differs, or the same bits where they may differ."""
import json
import re
import subprocess

from jobs import DONE, USER, Trial, last_words

FREE = ("parallel.threads", "parallel.simd", "log.")
# Second values, where one cannot be thought out from the first and the list of the allowed ones. (What `auto` comes to here
# would be no other value.)
SECOND = {
    "checkpoint.best": "mae",
    "checkpoint.resume": "never",
    "data.features.until": "2020-08-01",
    "data.validation.fraction": ".2",
    "evaluate.k": "[4]",
    "evaluate.labels": "[ratio>=3]",
    "model.content": "none",
    "model.engine": "torch",
    "parallel.backend": "nccl",
    "parallel.precision": "tf32",
    "train.early_stop.metric": "mae",
    "train.optimizer.momentum": ".5",
    "train.optimizer.name": "adamw",
    "train.schedule.name": "cosine",
    "train.schedule.steps": "500",
}
# What both ranks need for the second value to be allowed.
BOTH = {
    "data.path": ["model.content=none"],
    "parallel.precision": ["parallel.reduce=fast"],
    "train.optimizer.momentum": ["train.optimizer.name=sgd"],
    "train.schedule.steps": ["train.schedule.name=cosine"],
}


def keys(bench):
    """(key, value, allowed words) of all there are, from the program itself."""
    call = lambda *arguments: subprocess.run([bench.program, "validate", *map(str, arguments)], capture_output=True,
                                             text=True, env=bench.environment).stdout
    tree = json.loads(call(bench.config("content"), "--json"))["config"]
    allowed = {path: re.split(" or ", words) for path, words in
               re.findall(r"^  ([a-z_.]+): .*\n      ([a-z0-9_]+(?: or [a-z0-9_]+)*); ", call("--help"), re.M)}

    def flatten(node, prefix):
        for name, value in node.items():
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value
    return [(path, value, allowed.get(path, [])) for path, value in flatten(tree, "")]


def second_value(bench, path, value, allowed):
    if path == "data.path":
        return bench.data("plain")
    if path == "run.dir":
        return "elsewhere"
    if path in SECOND:
        return SECOND[path]
    if isinstance(value, bool):
        return "false" if value else "true"
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + (.1 if value == 0 else 0)
    return next((word for word in allowed if word not in (value, "auto", "nccl")), None)


def trials(bench):
    found = []
    for path, value, allowed in keys(bench):
        if path == "model.name":  # options of one are none of another: a file of its own (another --config)
            continue
        second = second_value(bench, path, value, allowed)
        if second is None:
            if len(allowed) != 1:  # of one value there is no second
                found.append(unknown(path, allowed))
            continue
        for shape in ((1, -1), (-1, 1), (1, -2), (2, -1)):  # ranks with the first value; minus: with the second
            found.append(apart(path, second, shape, BOTH.get(path, [])))
    run, tables = bench.whole("content"), bench.work / "bench"
    scored = ["evaluate", run, "--json"]
    for name, a, b in (
            ("train and evaluate", None, scored),
            ("train and validate", None, ["validate", bench.config("content")]),
            ("--pairs and none", scored, [*scored, "--pairs", tables / "source" / "small_matrix.csv"]),
            ("other --pairs", [*scored, "--pairs", tables / "source" / "small_matrix.csv"],
             [*scored, "--pairs", tables / "source" / "big_matrix.csv"]),
            ("other runs", scored, ["evaluate", bench.whole("plain"), "--json"]),
            ("other evaluate.k", scored, [*scored, "evaluate.k=[2]"]),
            ("an unknown key", None, ["no.such=1"]),
            ("an invalid value", None, ["train.epochs=none"]),
            ("another --config", None, "plain")):
        found += [told(name, "in this order", a, b), told(name, "the other way round", b, a)]
    return found


def unknown(path, allowed):
    return Trial(f"{path}", lambda case: case.find("other", f"this driver has no second value for {path} ({allowed}); add "
                                                            "one to SECOND in tests/long/ranks.py"))


def refused(case, ended):
    case.injured(ended, {USER, DONE})
    if ended.code == DONE:
        case.find("wrong", "exit 0 where ranks differ")
    elif (case.folder / "run" / "checkpoints").exists():
        case.find("other", "it trained before it compared")


def apart(path, second, shape, both):
    def work(case):
        second_ = case.folder / second if path == "run.dir" else second
        override = [*both, f"{path}={second_}"]
        valid = case.start([(1, ["validate", case.bench.config("content"), *override])]).wait()
        if valid.code != DONE:
            case.find("other", f"this driver's second value {second} is none: {valid.err.strip()}")
        sides = [(abs(count), case.arguments(override if count < 0 else both, "content")) for count in shape]
        ended = case.start(sides).wait()
        if path.startswith(FREE):
            case.injured(ended, {DONE})
            if ended.code == DONE:
                case.check_result(ended, "content")
        else:
            refused(case, ended)
            named = ("data.path", "data set") if path == "data.path" else (path,)
            if ended.code == USER and not any(name in ended.err + ended.out for name in named):
                case.find("other", f"the message does not name {path}: {last_words(ended)}")
    places = "; ".join(f"{abs(count)} with {'the second' if count < 0 else 'the first'}" for count in shape)
    return Trial(f"{path}={second}: {places}", work)


def told(name, order, a, b):
    """`a` and `b`: a command, or of training another set of data and configuration, or what is added (none: nothing)."""
    def work(case):
        def arguments(side):
            if side is None or side == "plain":
                return case.arguments(data=side or "content")
            return side if side[0] in ("evaluate", "validate") else case.arguments(side, "content")
        refused(case, case.start([(1, arguments(a)), (1, arguments(b))]).wait())
    return Trial(f"{name}, {order}", work)
