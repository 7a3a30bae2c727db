"""What the program says of itself: help, completion, the reference of the configuration, and the tour of its code."""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = sys.argv.pop(1)


def run(*arguments, code=0):
    ended = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert ended.returncode == code, (arguments, ended.returncode, ended.stderr)
    return ended.stdout if code == 0 else ended.stderr


def commands():
    return re.findall(r"^  ([a-z]\S*)", run("--help").split("Subcommands:")[1], re.M)


class Help(unittest.TestCase):
    def test_every_command_has_an_example_and_describes_its_options(self):
        self.assertLessEqual({"train", "synth", "import", "sweep", "completion"}, set(commands()))
        for command in commands():
            text = run(command, "--help")
            with self.subTest(command):
                examples = re.split(r"^Examples?:\n", text, flags=re.M)
                self.assertEqual(len(examples), 2, "no `Example:`")
                self.assertRegex(examples[1].splitlines()[0], rf"^  .*kuaitrain.*")
                self.assertIn(command if command != "train" else "kuaitrain", examples[1])
                # An option is described on its line, or on the next where its name is long.
                lines = examples[0].splitlines()
                for line, following in zip(lines, lines[1:] + [""]):
                    if re.match(r"  (-|[a-z]+ [A-Z])", line):
                        self.assertRegex(line + following, r"\S {2,}\S.*[a-z]", "an option without a word about it")

    def test_every_key_is_in_the_help(self):
        text = run("validate", "--help")
        keys = set(re.findall(r"^\| `([a-z0-9_.]+)`", run("validate", "--reference"), re.M))
        self.assertGreater(len(keys), 80)
        for key in keys:
            self.assertIn(f"  {key}: ", text)


class Reference(unittest.TestCase):
    def test_docs_are_what_the_program_prints(self):
        page = run("validate", "--reference")
        self.assertEqual(page, (ROOT / "docs/configuration.md").read_text(),
                         "run `kuaitrain validate --reference > docs/configuration.md`")

    def test_says_default_range_and_identity(self):
        page = run("validate", "--reference")
        self.assertRegex(page, r"\| `train.optimizer.lr` \| `0.001` \| a number .* \| learning rate \| yes \|")
        self.assertRegex(page, r"\| `log.every_steps` .* \| no \|")
        self.assertRegex(page, r"\| `train.epochs` .* \| schedule \|")
        self.assertRegex(page, r"(?s)## two_tower\n.*\| `model.dropout`")

    def test_every_configuration_is_of_documented_keys(self):
        page = run("validate", "--reference")
        for file in (ROOT / "configs").glob("*.yaml"):
            path = []
            for line in file.read_text().splitlines():
                match = re.match(r"( *)([a-z_0-9]+):(.*)", line)
                if not match:
                    continue
                path = path[:len(match[1]) // 2] + [match[2]]
                if re.sub(r" *#.*", "", match[3]).strip() and "{" not in match[3]:
                    self.assertIn(f"| `{'.'.join(path)}` |", page, file)

    def test_a_file_is_still_needed_without_it(self):
        self.assertIn("config is required", run("validate", code=2))


class Completion(unittest.TestCase):
    """As bash calls it: the words of the line, and which of them the cursor is in."""

    def complete(self, *words, folder=None):
        script = """
          source <("$0" completion bash)
          COMP_WORDS=(kuaitrain "$@") COMP_CWORD=$#
          kuaitrain() { "$PROGRAM" "$@"; }
          _kuaitrain
          printf '%s\\n' "${COMPREPLY[@]}"
        """
        ended = subprocess.run(["bash", "--norc", "-c", script, PROGRAM, *words], cwd=folder, text=True,
                               capture_output=True, env={"PROGRAM": PROGRAM, "PATH": "/usr/bin:/bin"})
        self.assertEqual(ended.stderr, "")
        return [word for word in ended.stdout.split("\n") if word]

    def test_commands(self):
        self.assertEqual(self.complete("sy"), ["synth "])
        with tempfile.TemporaryDirectory() as empty:
            all_commands = {word.strip() for word in self.complete("", folder=empty) if word.endswith(" ")}
        self.assertEqual(all_commands, set(commands()))

    def test_options_of_the_command(self):
        self.assertEqual(self.complete("synth", "--s"), ["--scale ", "--seed "])
        self.assertIn("--exclude-seen ", self.complete("recommend", "runs/ncf", "--"))
        self.assertIn("--json ", self.complete("recommend", "--"))
        self.assertEqual(self.complete("import", "--scale"), [])

    def test_words_of_an_option(self):
        self.assertEqual(self.complete("evaluate", "run", "--weights", ""), ["equal ", "validation "])
        self.assertEqual(self.complete("import", "--quote", ""), ["double ", "none "])
        self.assertEqual(self.complete("completion", "z"), ["zsh "])

    def test_keys_of_the_configuration_and_of_systems(self):
        self.assertEqual(self.complete("train", "train.epo"), ["train.epochs="])
        self.assertEqual(self.complete("train.epo"), ["train.epochs="])  # as the program itself: to train
        self.assertIn("model.embedding=", self.complete("validate", "configs/ncf.yaml", "model.e"))
        keys = set(re.findall(r"^\| `([a-z0-9_.]+)`", run("validate", "--reference"), re.M))
        with tempfile.TemporaryDirectory() as empty:
            self.assertEqual({word[:-1] for word in self.complete("train", "", folder=empty)}, keys)
        self.assertEqual(self.complete("synth", "train.epo"), [])

    def test_files_where_the_program_knows_nothing(self):
        # Nothing from the function: bash goes on to names of files, as `complete -o default` says.
        self.assertEqual(self.complete("train", "--config", ""), [])
        self.assertEqual(self.complete("inspect", ""), [])
        self.assertIn("-o default", run("completion", "bash"))
        # Beside keys, folders.
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "data set").mkdir()
            self.assertIn(r"data\ set/", self.complete("evaluate", "data", folder=folder))

    def test_other_shells_and_none(self):
        self.assertIn("compdef _kuaitrain kuaitrain", run("completion", "zsh"))
        self.assertIn("complete -c kuaitrain", run("completion", "fish"))
        self.assertIn("got tcsh, expected bash, zsh or fish", run("completion", "tcsh", code=2))


class Tour(unittest.TestCase):
    def test_every_file_and_function_is_there(self):
        text = (ROOT / "docs/tour.md").read_text()
        named = set(re.findall(r"`([^`\n]+)`", text)) | set(re.findall(r"\bdocs/\w[\w-]*\.md", text))
        sources = "".join(file.read_text() for folder in ("launch", "io", "sharding", "models", "trainer")
                          for kind in ("*.h", "*.cpp") for file in (ROOT / folder).rglob(kind))
        files = {file.name for file in (ROOT / "trainer/steps").iterdir()}
        seen = 0
        for name in named:
            with self.subTest(name):
                if re.fullmatch(r"[\w/-]+\.(h|cpp|md|cu)", name):
                    self.assertTrue((ROOT / name).exists() or name in files, "no such file")
                    seen += 1
                elif re.fullmatch(r"[A-Za-z_]+(::[a-z_]+)?", name):
                    owner, _, member = name.rpartition("::")
                    pattern = rf"\b(class|struct) {owner}\b(?s:.)*?\b{member}\(" if owner else rf"\b{member}\b"
                    self.assertTrue(re.search(pattern, sources), "no such name")
                    seen += 1
        self.assertGreater(seen, 50)


if __name__ == "__main__":
    unittest.main()
