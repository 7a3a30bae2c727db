"""`kuaitrain export`: every system's export scores as the program does, read by numpy alone.   exports_test.py PROGRAM"""
import csv
import json
import pathlib
import re
import resource
import sys
import unittest

import numpy as np
import safetensors
import safetensors.numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "docs"), str(ROOT / "tests" / "support")]
import schemas  # noqa: E402
import score_export  # noqa: E402
from small_runs import CONFIGS, SmallRuns  # noqa: E402

PROGRAM = sys.argv.pop()
# Every system of configs/, and forms of them whose graphs, targets or inputs are others.
FORMS = {path.stem: [] for path in CONFIGS.glob("*.yaml") if not path.stem.endswith("_reference")}
del FORMS["tiny"], FORMS["ncf_gpu"]
FORMS |= {name: [] for name in ["feature_mlp_reference", "two_tower_reference", "two_tower_hybrid_reference", "extract/two_tower_ids", "extract/als",
                                "extract/ease", "extract/autoencoder", "extract/softmax_full"]}
LOGARITHMIC = "mf as a logarithm"


class Exports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.runs = SmallRuns(PROGRAM)
        cls.addClassCleanup(cls.runs.close)
        cls.runs.train("ncf", "run", "checkpoint.best=mse")

    def export(self, run, file, *more, **options):
        return self.runs.run("export", run, "--format", pathlib.Path(file).suffix[1:], "--out", file, *more, **options)

    def scores(self, run, *keys):
        """Ids of user and video, and the score, of each pair that `evaluate` scores."""
        self.runs.run("evaluate", run, "--scores", "scores.csv", "--quiet", *keys)
        with open(self.runs.path / "scores.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        return [line["user_id"] for line in lines], [line["video_id"] for line in lines], np.array([float(line["score"]) for line in lines])

    def expect_scores(self, arrays, document, run, *keys):
        users, videos, expected = self.scores(run, *keys)
        row_of_user, row_of_video = (score_export.rows_of_ids(arrays, name) for name in ("user_id", "video_id"))
        got = score_export.score(arrays, document, np.array([row_of_user[u] for u in users]), np.array([row_of_video[v] for v in videos]))
        self.assertGreater(len(expected), 1000)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    def test_every_system_scores_as_the_program_does(self):
        forms = [(name, name, keys) for name, keys in FORMS.items()] + [(LOGARITHMIC, "mf", ["model.target.kind=log"])]
        self.assertGreaterEqual(len(forms), 25)
        kinds = set()
        for k, (name, config, keys) in enumerate(forms):
            with self.subTest(name):
                run = self.runs.train(config, f"of-{k}", *keys)
                file = self.runs.path / f"of-{k}.{['npz', 'safetensors'][k % 2]}"
                self.export(run, file)
                arrays, document = score_export.load(str(file))
                schemas.validate(run)
                result = schemas.result_of(run)
                self.assertEqual((document["system"], document["step"], document["weights_hash"], document["dataset_hash"]),
                                 (result["config"]["model"]["name"], result["steps"], result["weights_hash"], result["dataset"]["hash"]))
                self.expect_scores(arrays, document, run)
                kinds |= {layer["kind"] for layer in document["graph"]}
        # Every kind that the documentation lists, but for one that no system has.
        listed = re.search(r"\| kind \| value \|\n(.*)", (ROOT / "docs" / "export.md").read_text(), re.S)[1]
        listed = {kind for line in listed.splitlines()[1:] for kind in re.findall(r"`(\w+)`", line.split("|")[1])}
        self.assertEqual(kinds, listed - {"tanh"})
        a = np.array([[0.5, -2.0]])
        np.testing.assert_array_equal(score_export.compute({"kind": "tanh", "arrays": []}, [a], {}, None, None), np.tanh(a))

    def test_other_readers_find_the_same_in_both_formats(self):
        for file in ["run.safetensors", "run.npz"]:
            self.export("run", file)
        with safetensors.safe_open(self.runs.path / "run.safetensors", "np") as file:
            document = json.loads(file.metadata()["kuaitrain"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        archive = np.load(self.runs.path / "run.npz")
        self.assertEqual(json.loads(archive["metadata.json"]), document)
        self.assertEqual({*archive.files}, {*tensors, "metadata.json"})
        for name, tensor in tensors.items():
            self.assertEqual(archive[name].dtype, tensor.dtype)
            np.testing.assert_array_equal(archive[name], tensor)
        self.assertEqual(tensors["user_embedding"].shape, (321, 32))
        self.assertEqual(tensors["columns.item"].shape, (480, 15))
        self.assertEqual([column["name"] for column in document["columns"]], ["content"])

    def test_the_example_of_the_documentation_scores(self):
        self.export("run", "ncf.npz")
        example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)[1]
        names = {}
        exec(example.replace("ncf.npz", str(self.runs.path / "ncf.npz")), names)
        for user, video, expected in [*zip(*self.scores("run"))][::97]:
            self.assertAlmostEqual(names["score"](user, video), expected, delta=1e-5)

    def test_the_checkpoint_is_the_one_that_evaluate_takes(self):
        worse = self.runs.train("ncf", "worse", "train.optimizer.lr=0.1", "train.epochs=4", "train.seed=3", "checkpoint.best=mse", "checkpoint.keep=9")
        validation = [epoch["validation"]["mse"] for epoch in schemas.result_of(worse)["epochs"]]
        best = schemas.result_of(worse)["epochs"][int(np.argmin(validation))]["step"]
        report, _ = self.export("worse", "best.safetensors", "evaluate.checkpoint=best")
        self.assertIn(f"arrays of worse, step {best} (best)", report)
        arrays, document = score_export.load(str(self.runs.path / "best.safetensors"))
        self.assertEqual((document["step"], document["checkpoint"]), (best, f"step {best} (best)"))
        self.expect_scores(arrays, document, "worse", "evaluate.checkpoint=best")
        self.assertNotEqual(best, schemas.result_of(worse)["steps"], validation)

    def test_json_says_what_was_written(self):
        out, _ = self.export("run", "j.npz", "--json")
        told = json.loads(out)
        self.assertEqual((told["path"], told["format"], told["weights_hash"]), ("j.npz", "npz", schemas.result_of(self.runs.path / "run")["weights_hash"]))
        self.assertEqual(told["arrays"]["user_embedding"], [321, 32])

    def refuse(self, message, *arguments, **options):
        _, error = self.runs.run("export", *arguments, code=2, **options)
        self.assertRegex(error, "error: .*" + message)
        self.assertEqual(error.count("error: "), 1)

    def test_what_cannot_be_written_is_refused(self):
        (self.runs.path / "begun").mkdir(exist_ok=True)
        (self.runs.path / "begun" / "config.yaml").write_bytes((self.runs.path / "run" / "config.yaml").read_bytes())
        self.refuse("csv not in {safetensors,npz}", "run", "--format", "csv", "--out", "f")
        self.refuse("--out is required", "run")
        self.refuse("nowhere: no config.yaml there; expected the folder of a run", "nowhere", "--out", "f")
        self.refuse("begun: the run has no checkpoint yet", "begun", "--out", "f")
        self.refuse("none/f: cannot write it: there is no folder none; make it, or name another file", "run", "--out", "none/f")
        self.refuse("begun: is a folder, expected a file to write", "run", "--out", "begun")
        self.refuse("/dev/stdout: is a pipe or stream, expected a file", "run", "--format", "npz", "--out", "/dev/stdout")
        self.refuse("`export` runs as one process, but 2 tasks", "run", "--out", "f", launcher=("mpirun", "--oversubscribe", "-np", "2"))
        self.assertFalse((self.runs.path / "f").exists())

    def test_a_full_disk_leaves_what_was_there(self):
        full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))}
        for suffix in ["safetensors", "npz"]:
            (self.runs.path / f"old.{suffix}").write_text("old")
            self.refuse(f"old.{suffix}: cannot write it: File too large; free space on that disk, then run again", "run", "--format", suffix, "--out",
                        f"old.{suffix}", **full)
            self.assertEqual((self.runs.path / f"old.{suffix}").read_text(), "old")
        self.assertEqual([path.name for path in self.runs.path.iterdir() if ".tmp-" in path.name], [])


if __name__ == "__main__":
    unittest.main()
