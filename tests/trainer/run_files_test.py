"""What others read of a run: metrics.jsonl and result.json by their schemas, TensorBoard's event file by TensorBoard.   run_files_test.py PROGRAM"""
import copy
import json
import pathlib
import sys
import unittest

import jsonschema
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.plugins.hparams import metadata

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "docs"), str(ROOT / "tests" / "support")]
import schemas  # noqa: E402
import score_export  # noqa: E402
from small_runs import SmallRuns  # noqa: E402

PROGRAM = sys.argv.pop()
START, END = "_hparams_/session_start_info", "_hparams_/session_end_info"


def events_of(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    return events


def scalars_of(events):
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def histograms_of(events):
    return {tag: [(e.step, e.histogram_value) for e in events.Histograms(tag)] for tag in events.Tags()["histograms"]}


def hyper_parameters(events):
    hparams = metadata.parse_session_start_info_plugin_data(events.SummaryMetadata(START).plugin_data.content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in hparams.items()}


class RunFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.runs = SmallRuns(PROGRAM)
        cls.addClassCleanup(cls.runs.close)
        cls.run_ = cls.runs.train("ncf", "run", "log.every_steps=3", "evaluate.every=1", "evaluate.bootstrap=9", "evaluate.groups=true")

    def test_files_are_as_their_schemas_say(self):
        schemas.validate(self.run_)
        self.assertEqual({line["kind"] for line in schemas.metrics_of(self.run_)}, {"interval", "epoch", "evaluation"})
        self.assertIn("duration", schemas.result_of(self.run_)["evaluation"]["groups"])
        self.assertTrue(all(line["gradient_norm"] > 0 for line in schemas.metrics_of(self.run_) if line["kind"] == "interval"))

    def test_so_are_those_of_runs_of_other_kinds(self):
        for name, config, *keys in [("stopped early", "mf", "train.epochs=20", "train.early_stop.metric=mse", "train.early_stop.patience=1", "train.optimizer.lr=0.3"),
                                    ("without validation", "ncf", "data.validation.fraction=0", "checkpoint.best=none"),
                                    ("of the catalogue, cleaned", "softmax", "evaluate.candidates=catalogue", "data.repeats=mean", "data.filter.max_label=4"),
                                    ("an order, by another label", "bpr", "evaluate.labels=[ratio>=1]", "evaluate.groups=true")]:
            with self.subTest(name):
                schemas.validate(self.runs.train(config, name, *keys))
        self.assertTrue(schemas.result_of(self.runs.path / "stopped early")["stopped_early"])
        self.assertNotIn("validation", schemas.result_of(self.runs.path / "without validation")["epochs"][0])
        self.assertIn("dropped_at_load", schemas.result_of(self.runs.path / "of the catalogue, cleaned")["dataset"])
        self.assertEqual(schemas.result_of(self.runs.path / "of the catalogue, cleaned")["evaluation"]["candidates"], "catalogue")

    def test_a_run_without_a_test_table_has_no_evaluation(self):
        (self.runs.path / "ratings.csv").write_text("u,i,r\n" + "".join(f"{k % 9},{k % 13},{1 + k % 5}\n" for k in range(117)))
        self.runs.run("import", "ratings.csv", "--map", "user=u,item=i,label=r", "--out", "ratings")
        run = self.runs.train("mf", "untested", "data.path=ratings")
        schemas.validate(run)
        self.assertIsNone(schemas.result_of(run)["evaluation"])

    def test_what_commands_print_is_too(self):
        complete = json.loads(self.runs.run("--config", "run/config.yaml", "run.dir=run", "--json")[0])
        self.assertTrue(complete["already_complete"])
        schemas.RESULT.validate(complete)
        other = self.runs.train("mf", "other")
        for arguments in [["run"], ["run", other, "--blend"], ["run", other, "--rerank", "5"]]:
            schemas.EVALUATION.validate(json.loads(self.runs.run("evaluate", *arguments, "--json")[0]))

    def test_other_documents_are_not(self):
        def refused(validator, document, change):
            document = copy.deepcopy(document)
            change(document)
            self.assertRaises(jsonschema.ValidationError, validator.validate, document)

        result = schemas.result_of(self.run_)
        for change in [lambda r: r.pop("weights_hash"), lambda r: r.update(more=1), lambda r: r.update(steps="22"), lambda r: r.update(weights_hash="0x12"),
                       lambda r: r["evaluation"]["metrics"].update(mse=None), lambda r: r["evaluation"].pop("chance"), lambda r: r["config"].update(sweep={}),
                       lambda r: r["evaluation"]["groups"]["duration"][0].update(tenth=11), lambda r: r["seconds"].pop("compute")]:
            refused(schemas.RESULT, result, change)
        lines = {line["kind"]: line for line in schemas.metrics_of(self.run_)}
        for kind, change in [("interval", lambda m: m.pop("gradient_norm")), ("interval", lambda m: m.update(kind="epoch")), ("interval", lambda m: m.update(epoch=0)),
                             ("epoch", lambda m: m["validation"].pop("mse")), ("epoch", lambda m: m.update(loss=1)), ("evaluation", lambda m: m.update(metrics=[])),
                             ("evaluation", lambda m: m.update(checkpoint="newest"))]:
            refused(schemas.METRICS, lines[kind], change)

    def test_tensorboard_reads_the_numbers_of_metrics(self):
        scalars = scalars_of(events_of(self.run_))
        lines = schemas.metrics_of(self.run_)
        for tag, kind, value in [("train/loss", "interval", lambda line: line["loss"]), ("train/gradient_norm", "interval", lambda line: line["gradient_norm"]),
                                 ("train/learning_rate", "interval", lambda line: line["learning_rate"]), ("epoch/train_loss", "epoch", lambda line: line["train_loss"]),
                                 ("validation/mse", "epoch", lambda line: line["validation"]["mse"]),
                                 ("evaluation/ndcg@10/ratio>=2", "evaluation", lambda line: line["metrics"]["ndcg@10/ratio>=2"])]:
            self.assertEqual(scalars[tag], [(line["step"], np.float32(value(line))) for line in lines if line["kind"] == kind], tag)

    def test_tensorboard_reads_histograms_of_the_weights(self):
        histograms = histograms_of(events_of(self.run_))
        self.runs.run("export", "run", "--out", "run.safetensors")
        arrays, document = score_export.load(str(self.runs.path / "run.safetensors"))
        epochs = [epoch["step"] for epoch in schemas.result_of(self.run_)["epochs"]]
        weights = {name for layer in document["graph"] for name in layer["arrays"] if not name.startswith("columns.")}
        self.assertEqual({*histograms}, {f"weights/{name}" for name in weights})
        for name in weights:
            self.assertEqual([step for step, _ in histograms[f"weights/{name}"]], epochs)
            of, values = histograms[f"weights/{name}"][-1][1], arrays[name].ravel().astype(float)
            self.assertEqual((of.min, of.max, of.num, sum(of.bucket)), (values.min(), values.max(), values.size, values.size))
            np.testing.assert_allclose([of.sum, of.sum_squares], [values.sum(), (values**2).sum()], rtol=1e-9, atol=1e-12)
            ends = np.array(of.bucket_limit)
            self.assertTrue((np.diff(ends) > 0).all())
            np.testing.assert_array_equal(np.bincount(np.searchsorted(ends, values), minlength=len(ends)), of.bucket, name)
        of = histograms["weights/user_embedding"][-1][1]
        self.assertGreater(len(of.bucket), 50)
        # Those with numbers are at most an eighth of their beginning wide.
        self.assertLess(max(b / a for a, b, n in zip(of.bucket_limit, of.bucket_limit[1:], of.bucket[1:]) if n > 0 and a > 0), 1.126)

    def test_histograms_are_the_same_on_any_number_of_ranks(self):
        for config in ["ncf", "als"]:
            one = histograms_of(events_of(self.runs.train(config, f"{config}-1")))
            three = self.runs.train(config, f"{config}-3", "parallel.threads=2", launcher=("mpirun", "--oversubscribe", "--bind-to", "none", "-np", "3"))
            self.assertGreater(len(one), 1)
            self.assertEqual(histograms_of(events_of(three)), one)

    def test_tensorboard_reads_the_hyper_parameters(self):
        events = events_of(self.run_)
        read = hyper_parameters(events)
        self.assertEqual((read["train.epochs"], read["train.optimizer.lr"], read["model.name"], read["model.negatives.exclude_block"]), (2, 0.001, "ncf", False))
        end = metadata.parse_session_end_info_plugin_data(events.SummaryMetadata(END).plugin_data.content)
        start = metadata.parse_session_start_info_plugin_data(events.SummaryMetadata(START).plugin_data.content)
        self.assertEqual(end.status, 1)
        self.assertLess(start.start_time_secs, end.end_time_secs)

    def test_a_resume_goes_on_in_both(self):
        whole = scalars_of(events_of(self.run_))
        keys = ["log.every_steps=3", "evaluate.every=1", "evaluate.bootstrap=9", "evaluate.groups=true"]
        self.runs.train("ncf", "resumed", *keys, "train.max_steps=5")
        # The run did not reach its epoch: what it logged past a checkpoint, and what its session told, is told again.
        run = self.runs.train("ncf", "resumed", *keys)
        schemas.validate(run)
        self.assertEqual(schemas.result_of(run)["resumed_from"], [5])
        events = events_of(run)
        scalars = scalars_of(events)
        self.assertEqual(scalars["epoch/train_loss"], whole["epoch/train_loss"])
        steps = [step for step, _ in scalars["train/loss"]]
        self.assertEqual(steps, sorted({*steps}))
        self.assertEqual(hyper_parameters(events)["train.max_steps"], 0)
        raw = b"".join(RawEventFileLoader(str(next((run / "tensorboard").iterdir()))).Load())
        self.assertEqual((raw.count(START.encode()), raw.count(END.encode())), (1, 1))


if __name__ == "__main__":
    unittest.main()
