"""Small runs of the built program for tests in Python."""
import os
import pathlib
import subprocess
import tempfile

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


class SmallRuns:
    """A folder of its own with `dataset`, a synthetic replica of 321 users and 480 videos, and the runs trained on it."""

    def __init__(self, program):
        self.program = pathlib.Path(program).resolve()
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.run("synth", "--scale", "0.002", "--out", "source")
        self.run("import", "source", "--out", "dataset", "--shards", "8")

    def run(self, *arguments, code=0, launcher=(), **options):
        """Standard output and error of the program started in the folder; it has to end with `code`."""
        command = [*launcher, str(self.program), *map(str, arguments)]
        ended = subprocess.run(command, cwd=self.path, env=os.environ | {"TMPDIR": str(self.path)}, capture_output=True, text=True, timeout=120, **options)
        assert ended.returncode == code, f"{command} ended with {ended.returncode}, not {code}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout, ended.stderr

    def train(self, config, run, *keys, **options):
        """Two short epochs of configs/`config`.yaml in the folder `run`, which is returned."""
        self.run("--config", CONFIGS / f"{config}.yaml", "--quiet", "data.path=dataset", f"run.dir={run}", "train.global_batch=3000", "train.epochs=2",
                 "train.schedule.name=constant", "evaluate.bootstrap=0", *keys, **options)
        return self.path / run

    def close(self):
        self.folder.cleanup()
