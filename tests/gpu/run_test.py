"""tests/gpu/run over the stand-ins of CUDA and NCCL; what tests/gpu/bundle refuses.   run_test.py PROGRAM_ON_STAND_INS"""
import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

PATH = str(pathlib.Path(__file__).resolve().parent / "run")
spec = importlib.util.spec_from_loader("gpu_run", importlib.machinery.SourceFileLoader("gpu_run", PATH))
gpu_run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_run)

PROGRAM = pathlib.Path(sys.argv.pop()).resolve()
PEER = {"torch": "2.0", "cuda": "13", "results": [
    {"form": "eager", "batch": 512, "samples_per_second": 1e6}, {"form": "graph", "batch": 512, "samples_per_second": 4e6},
    {"form": "compiled", "batch": 512, "error": "no compiler"}]}


class GpuRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.path = pathlib.Path(cls.folder.name)

    def script(self, name, text):
        path = self.path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def sanitizer(self, races):
        """Its options are three words and the program's are the rest."""
        return self.script(f"sanitizer-{races}", f'''shift; tool=$1; shift 3; "$@" || exit
[ $tool = memcheck ] && echo "========= ERROR SUMMARY: 0 errors" || echo "========= RACECHECK SUMMARY: {races} hazards displayed"''')

    def run_over(self, program, *arguments, python=None, sanitizer=None):
        """Exit code, what it printed, result.json."""
        work, printed = self.path / "work", io.StringIO()
        command = [PATH, "--program", str(program), "--work", str(work), "--scale", "0.002", "--steps", "2", "--batches", "512"]
        with mock.patch.object(sys, "argv", [*command, *arguments]), mock.patch.object(gpu_run, "SYSTEMS", ["als"]), contextlib.redirect_stdout(printed), \
                mock.patch.object(gpu_run, "python_with_cuda", lambda: python), \
                mock.patch.object(gpu_run, "sanitizer", lambda: sanitizer), self.assertRaises(SystemExit) as end:
            gpu_run.main()
        text = printed.getvalue()
        self.assertEqual((work / "summary.md").read_text(), text)
        return end.exception.code, text, json.loads((work / "result.json").read_text())

    def test_it_compares_measures_and_looks_for_errors(self):
        python = self.script("python", f"echo '{json.dumps(PEER)}'")
        code, text, found = self.run_over(PROGRAM, "--gpus", "2", python=python, sanitizer=self.sanitizer(0))
        self.assertEqual(code, 0, text)
        self.assertIn("all checks hold", text)
        self.assertEqual([(row["run"], row["GPUs"]) for row in found["bits"]],
                         [("ncf, 512 rows", 1), ("ncf, 512 rows", 2), ("als", 1), ("als", 2)])
        for row in found["bits"]:
            self.assertEqual(row["on GPUs"], row["hash on the CPU"])
        self.assertEqual([row["ms"] for row in found["evaluation"]], ["CPU, a rank", "1 GPU", "2 GPUs"])
        for row in found["evaluation"]:
            self.assertGreater(row["score"], 0)
        for row in found["speed"]:
            self.assertEqual((row["PyTorch graph"], row["PyTorch compiled"]), (4, None))
            self.assertAlmostEqual(row["exact / PyTorch"], row["exact"] / 4)
            self.assertGreater(row["libtorch"], 0)
        self.assertIn("compiled at 512: no compiler", text)
        self.assertEqual([(row["tool"], row["errors"]) for row in found["sanitizer"]],
                         [("memcheck", "0 found")] * 2 + [("racecheck", "0 found")] * 2)

    def test_other_bits_fail_and_libtorch_may_be_another(self):
        other = self.script("other", f'''case "$*" in
  *parallel.backend=mpi*|*synth*|*import*) exec {PROGRAM} "$@" ;;
  *model.engine=torch*) exit 2 ;;
esac
exec {PROGRAM} "$@" train.seed=2''')
        code, text, found = self.run_over(other, "--gpus", "1")
        self.assertEqual(code, 1)
        self.assertIn("FAILED", text)
        self.assertEqual((found["bits"][0]["bits"], found["bits"][0]["metrics"]), ("OTHERS", "OTHERS"))
        self.assertIn("PyTorch: not measured", text)
        self.assertIn("not run: compute-sanitizer", text)
        self.assertIsNone(found["speed"][0]["exact / PyTorch"])
        self.assertIsNone(found["speed"][0]["libtorch"])
        self.assertGreater(found["speed"][0]["fast"], 0)

    def test_races_fail_and_so_does_a_run_that_does(self):
        breaks = self.script("breaks", "exit 3")
        for sanitizer, errors in ((self.sanitizer(3), ["0 found"] * 2 + ["3 found"] * 2), (breaks, ["EXIT 3"] * 4)):
            bench = gpu_run.Bench(argparse.Namespace(work=self.path / "races", data=None, program=PROGRAM))
            report = gpu_run.Report(bench.work)
            with mock.patch.object(gpu_run, "sanitizer", lambda: sanitizer), contextlib.redirect_stdout(io.StringIO()):
                gpu_run.sanitize(bench, report)
            self.assertFalse(report.fine)
            self.assertEqual([row["errors"] for row in report.document["sanitizer"]], errors)
        # A log of each.
        self.assertEqual(len(list(bench.work.glob("*check-*.log"))), 4)


class Bundle(unittest.TestCase):
    def test_it_refuses_what_is_not_built_and_a_folder_that_exists(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            shutil.copytree(pathlib.Path(PATH).parent, root / "tests" / "gpu")
            bundle = [root / "tests" / "gpu" / "bundle", root / "tests"]
            ended = subprocess.run(bundle, capture_output=True, text=True)
            self.assertEqual(ended.returncode, 2)
            self.assertIn("error: build/gpu/kuaitrain: not built; run cmake", ended.stderr)
            program = root / "build" / "gpu" / "kuaitrain"
            program.parent.mkdir(parents=True)
            program.touch(0o755)
            ended = subprocess.run(bundle, capture_output=True, text=True)
            self.assertEqual(ended.returncode, 2)
            self.assertIn(f"error: {root / 'tests'}: exists; give a folder that does not", ended.stderr)


if __name__ == "__main__":
    unittest.main()
