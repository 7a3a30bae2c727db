"""What people see at a terminal: progress of each command that takes long, and none of it in a pipe or when quiet."""
import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM, MPIRUN = sys.argv.pop(1), sys.argv.pop(1)
BAR = r"\[[=>][=> ]*\] +\d+ % "
LEFT = r"/s, \S+ (s|min|h) left"


def at_terminal(folder, *command):
    """Runs a command at a terminal of its own. Returns: its exit code and all that it wrote."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvp(command[0], command)
    written = b""
    while True:
        try:
            some = os.read(terminal, 65536)
        except OSError:  # how a terminal ends
            break
        if not some:
            break
        written += some
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), written.decode().replace("\r\n", "\n")


def left_standing(written):
    """The lines as they stay on the screen."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part.replace("\x1b[K", "") if "\x1b[K" in part else part + shown[len(part):]
        lines.append(shown)
    return "\n".join(lines)


class Terminal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.folder = cls.work.name
        for arguments in (["synth", "--out", "csv", "--scale", "0.002"], ["import", "csv", "--out", "data", "--shards", "8"]):
            subprocess.run([PROGRAM, *arguments], cwd=cls.folder, check=True, capture_output=True)
        cls.training = ["--config", str(ROOT / "configs/tiny.yaml"), "data.path=data"]
        cls.run_program("train", *cls.training, "run.dir=run")
        (pathlib.Path(cls.folder) / "sweep.yaml").write_text(
            f"config: {ROOT}/configs/tiny.yaml\nfolder: sweep\nset: {{data.path: data}}\nobjective: {{metric: mse}}\n"
            "search: {kind: grid}\nparameters:\n  train.optimizer.lr: [1.0e-3, 2.0e-3]\n")

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    @classmethod
    def run_program(cls, *arguments):
        return subprocess.run([PROGRAM, *arguments], cwd=cls.folder, check=True, capture_output=True, text=True)

    def expect_bars(self, *arguments, titles):
        code, written = at_terminal(self.folder, PROGRAM, *arguments)
        self.assertEqual(code, 0, written)
        for title, more in titles.items():
            self.assertRegex(written, rf"\r{title} {BAR}\S+ {more}")
        stays = left_standing(written)
        self.assertNotRegex(stays, BAR)
        return stays

    def test_synth_and_import(self):
        self.expect_bars("synth", "--out", "other", "--scale", "0.002", titles={"synth": "rows" + LEFT})
        stays = self.expect_bars("import", "csv", "--out", "again",
                                 titles={"import: reading": "B" + LEFT, "import: writing": "rows" + LEFT})
        self.assertIn("training rows", stays)

    def test_training_and_its_evaluation(self):
        stays = self.expect_bars("train", *self.training, "run.dir=watched", titles={
            "training": "rows" + LEFT + r"  loss \d+\.\d+", "validation": "rows/s",
            "evaluation: scores": "pairs/s", "evaluation: metrics": "pairs/s"})
        self.assertRegex(stays, r"(?m)^epoch 2/2 done in")

    def test_evaluation(self):
        self.expect_bars("evaluate", "run", titles={"evaluation: scores": "pairs/s"})

    def test_sweep_below_its_leaderboard(self):
        code, written = at_terminal(self.folder, PROGRAM, "sweep", "sweep.yaml")
        self.assertEqual(code, 0, written)
        self.assertRegex(written, rf"\nsweep {BAR}\S+ epochs/s")
        after = written.rsplit("\x1b[J", 1)[1]  # the screen was cleared before the result
        self.assertNotRegex(after, BAR)
        self.assertIn("best: sweep/best.yaml", after)

    def test_ranks_of_mpirun_find_its_terminal(self):
        code, written = at_terminal(self.folder, MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", "2", PROGRAM,
                                    *self.training, "run.dir=ranks")
        self.assertEqual(code, 0, written)
        self.assertRegex(written, rf"\rtraining {BAR}")

    def test_nothing_without_a_terminal_or_when_quiet(self):
        for arguments in (["synth", "--out", "piped-csv", "--scale", "0.002"], ["import", "csv", "--out", "piped"],
                          ["train", *self.training, "run.dir=piped-run"], ["evaluate", "run"],
                          ["sweep", "sweep.yaml", "train.seed=2"]):
            ended = self.run_program(*arguments)
            self.assertNotRegex(ended.stdout + ended.stderr, BAR, arguments)
            self.assertNotRegex(ended.stdout + ended.stderr, r"[\r\x1b]", arguments)
        code, written = at_terminal(self.folder, PROGRAM, "train", "--quiet", *self.training, "run.dir=quiet")
        self.assertEqual((code, written), (0, ""))
        piped = subprocess.run([MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", "2", PROGRAM, *self.training,
                                "run.dir=piped-ranks"], cwd=self.folder, check=True, capture_output=True, text=True)
        self.assertNotRegex(piped.stdout + piped.stderr, BAR)

    def test_the_end_of_a_run_fits_a_screen(self):
        ended = self.run_program("train", *self.training, "run.dir=run").stdout  # complete: shown again
        summary = ended[ended.rindex("\nTrained"):].strip("\n").splitlines()
        self.assertLessEqual(len(summary), 24)
        self.assertLessEqual(max(map(len, summary)), 100)
        text = "\n".join(summary)
        for what in (r"^Trained  ncf, \d+ parameters, on \d+ rows of data \(synthetic", r"2 whole epochs, \d+ steps in",
                     r"^ +ndcg@5/ratio>=2 +\d\.\d{4} +\d\.\d{4}   \d\.\d{4} to \d\.\d{4}$",
                     r"^Results  run/result.json, weights_hash [0-9a-f]{32}$", r"kuaitrain recommend run --user"):
            self.assertRegex(text, re.compile(what, re.M))
        # What it says to do next works.
        user = (pathlib.Path(self.folder) / "csv/small_matrix.csv").read_text().splitlines()[1].split(",")[0]
        for line in summary:
            found = re.search(r"kuaitrain ((recommend|evaluate) .*)", line)
            if found:
                self.run_program(*found[1].replace(" ID", f" {user}").split())


if __name__ == "__main__":
    unittest.main()
