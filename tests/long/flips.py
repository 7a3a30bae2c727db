"""Files with a bit flipped, cut, emptied, zeroed in part or gone: refused by name, not needed, or made again."""
import json
import os
import re
import shutil

from jobs import DONE, USER, Trial, differences, last_words, on, without

TRIALS = 2000
#                state     share
STATES = (("data", 20), ("content", 15), ("half", 30), ("complete", 35))
COMMANDS = {"data": ("train", "train", "evaluate", "inspect"), "content": ("train", "recommend", "inspect"),
            "half": ("train", "train", "inspect"), "complete": ("train", "train", "evaluate", "recommend", "inspect")}
KINDS = ("flip",) * 15 + ("cut",) * 5 + ("empty", "zeros", "gone", "append")


def trials(bench):
    sources = {"data": bench.data("plain"), "content": bench.data("content"), "half": bench.half(),
               "complete": bench.whole()}
    files = {state: sorted(path for path in source.rglob("*") if not path.is_dir() or path.is_symlink())
             for state, source in sources.items()}
    # Of text a flip may leave text: it is tried more often.
    files = {state: [path for path in paths for _ in range(3 if path.suffix in (".json", ".yaml") else 1)]
             for state, paths in files.items()}
    found = []
    for k in range(TRIALS):
        generator = bench.random("flips", k)
        state = generator.choices([state for state, _ in STATES], [share for _, share in STATES])[0]
        name = generator.choice(files[state]).relative_to(sources[state])
        command = generator.choice(COMMANDS[state])
        kind = generator.choice(KINDS)
        found.append(damaged(state, sources[state], name, command, kind, generator.random(), generator.randrange(8),
                             1 + (k % 10 == 0)))
    return found


def damage(path, kind, where, bit):
    """True when the file is another than before."""
    if path.is_symlink():
        target = os.readlink(path)
        path.unlink()
        if kind != "gone":
            at = int(where * len(target))
            path.symlink_to(target[:at] + ("x" if kind == "flip" else ""))
        return True
    content = path.read_bytes()
    at = int(where * len(content))
    path.unlink()  # the file may be linked to the original
    if kind == "gone":
        return True
    changed = bytearray(content)
    if kind == "flip" and changed:
        changed[at] ^= 1 << bit
    if kind == "cut":
        del changed[at:]
    if kind == "empty":
        changed.clear()
    if kind == "zeros":
        changed[at:at + 512] = bytes(len(changed[at:at + 512]))
    if kind == "append":
        changed += bytes([bit]) * 16
    path.write_bytes(changed)
    return changed != content


def damaged(state, source, name, command, kind, where, bit, ranks):
    def work(case):
        is_data = state in ("data", "content")
        copy = case.folder / ("data" if is_data else "run")
        shutil.copytree(source, copy, symlinks=True, copy_function=os.link if is_data else shutil.copy2)
        damage(copy / name, kind, where, bit)
        data = "content" if state == "content" else "plain"
        place = [f"data.path={copy}"] if is_data else []
        run = case.bench.whole(data) if is_data else copy
        if command == "train":
            # A data set that was changed is seen by a new run and by one that goes on.
            trained(case, case.train(ranks, more=place, data=data), name, data)
        elif command == "inspect":
            inspected(case, source, copy, name)
        else:
            asked(case, command, run, place, name, data, ranks)
    return Trial(f"{command}: {name} ({state}): {kind} at {where:.4f} of it, bit {bit}; {on(ranks)}", work)


def names_it(case, ended, name):
    """A message that a user finds the file by; a configuration is named by what it asks for."""
    if name.name not in ended.err + ended.out and name.name != "config.yaml":
        case.find("other", f"the message does not name {name}: {last_words(ended)}")


def trained(case, ended, name, data):
    case.injured(ended, {DONE, USER})
    if ended.code == DONE:
        case.check_result(ended, data)
    elif ended.code == USER:
        names_it(case, ended, name)


def inspected(case, source, copy, name):
    part = name.parts[:2] if name.parts[0] == "checkpoints" else ()
    if copy.name == "run" and not part:
        part = ("checkpoints", os.readlink(source / "latest").split("/")[-1])
    expected = case.bench.answer("inspect", source.joinpath(*part), "--json")
    ended = case.start([(1, ["inspect", copy.joinpath(*part), "--json"])]).wait()
    case.injured(ended, {DONE, USER})
    if ended.code == USER:
        names_it(case, ended, name)
    elif ended.code == DONE and ended.out.replace(str(copy), str(source)) != expected:
        case.find("wrong", "inspect says something else of a damaged file")


def asked(case, command, run, place, name, data, ranks):
    """evaluate and recommend: what they say of an undamaged run, of an older checkpoint with a warning, or exit 2."""
    arguments = lambda of, more: [command, of, "--json", *(["--user", "u1" if data == "plain" else first_user(case)]
                                                           if command == "recommend" else []), *more]
    ranks = ranks if command == "evaluate" else 1
    expected = json.loads(case.bench.answer(*arguments(case.bench.whole(data), [])))
    ended = case.start([(ranks, arguments(run, place))]).wait()
    case.injured(ended, {DONE, USER})
    if ended.code == USER:
        names_it(case, ended, name)
    if ended.code != DONE:
        return
    try:
        got = json.loads(ended.out)
    except ValueError:
        case.find("wrong", "exit 0 without a document")
        return
    if got.get("checkpoint") != expected.get("checkpoint"):
        if name.name != "config.yaml":  # which says what is evaluated
            names_it(case, ended, name)
        return
    if command == "evaluate":
        same = got["metrics"].get("mse") == expected["metrics"]["mse"]
        if name.name != "config.yaml":
            same = without(got, "seconds", "parts") == without(expected, "seconds", "parts")
    else:
        same = got == expected
    if not same:
        case.find("wrong", f"{command}: {differences(got, expected)}")


def first_user(case):
    source = case.bench.work / "bench" / "source" / "small_matrix.csv"
    return re.search(r"\n(\d+),", source.read_text()).group(1)
