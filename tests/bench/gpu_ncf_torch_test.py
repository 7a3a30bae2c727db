"""bench/peers/gpu_ncf_torch.py trains ncf: on the CPU, beside plain NumPy.   gpu_ncf_torch_test.py, of a Python with PyTorch"""
import argparse
import contextlib
import io
import json
import pathlib
import sys
import unittest
from unittest import mock

import numpy
import torch

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench" / "peers"
sys.path.insert(0, str(PEERS))
import gpu_ncf_torch as peer  # noqa: E402
import ncf_reference  # noqa: E402

BATCH, ROWS = 64, 640


def training():
    return peer.Training(argparse.Namespace(device="cpu", rows=ROWS, users=9, videos=12), BATCH, "eager")


def arrays_of(model, part):
    return {name: getattr(array, part).detach().numpy().astype(numpy.float64)
            for name, array in model.named_parameters()}


class Peer(unittest.TestCase):
    def test_a_step_has_the_gradients_of_the_model_and_adams_update(self):
        t = training()
        t.model.eval()  # no dropout
        before, rows = arrays_of(t.model, "data"), t.samples.order[:BATCH]
        t.step()
        wanted = ncf_reference.gradients(
            before, t.model.features.numpy().astype(numpy.float64), t.samples.user[rows].numpy(),
            t.samples.video[rows].numpy(), t.samples.label[rows].numpy())
        after, got = arrays_of(t.model, "data"), arrays_of(t.model, "grad")
        self.assertEqual(len(got), 10)
        for name, gradient in wanted.items():
            self.assertGreater(abs(gradient).max(), 1e-3, name)
            numpy.testing.assert_allclose(got[name], gradient, rtol=1e-3, atol=1e-6, err_msg=name)
            numpy.testing.assert_allclose(before[name] - after[name], ncf_reference.adams_first(got[name]), atol=2e-7,
                                          err_msg=name)

    def test_it_drops_a_fifth_of_the_first_hidden_layer(self):
        t = training()
        seen = {True: [], False: []}  # by whether the model trains
        t.model.hidden2.register_forward_pre_hook(lambda _, inputs: seen[t.model.training].append(inputs[0].detach()))
        for mode in [True, False] * 10:
            t.model.train(mode)
            t.predict(t.samples.user, t.samples.video)
        dropped, whole = torch.cat(seen[True]), torch.cat(seen[False])
        alive = whole > 0
        self.assertAlmostEqual((dropped[alive] == 0).float().mean().item(), .2, delta=.01)
        both = alive & (dropped > 0)
        torch.testing.assert_close(dropped[both], whole[both] / .8)

    def test_steps_take_every_row_once_an_epoch(self):
        t, taken = training(), []
        for _ in range(ROWS // BATCH):
            taken += t.samples.order[t.places % ROWS].tolist()
            t.step()
        self.assertEqual(sorted(taken), list(range(ROWS)))

    def test_the_loss_falls(self):
        t = training()
        first = t.warm_up()
        for _ in range(300):
            last = t.step().item()
        self.assertGreater(first, .5)
        self.assertLess(last, first / 4)

    def test_it_prints_what_it_found(self):
        code, printed = self.start("--device", "cpu", "--batches", "32,64", "--rows", "640", "--users", "9", "--videos", "12",
                                   "--seconds", "0.01")
        self.assertEqual(code, 0)
        found = json.loads(printed)
        self.assertEqual([(row["form"], row["batch"]) for row in found["results"]], [("eager", 32), ("eager", 64)])
        for row in found["results"]:
            self.assertGreater(row["samples_per_second"], 0)
            self.assertLess(row["last_loss"], row["first_loss"])

    def test_it_refuses_what_a_cpu_cannot_do(self):
        for arguments, message in (
                (["--device", "cpu", "--forms", "graph"], "--forms: got graph, but a CPU has eager alone"),
                (["--device", "cpu", "--rows", "10", "--batches", "11"], "--rows: 10 are fewer than a batch of 11")):
            code, printed = self.start(*arguments)
            self.assertEqual(code, 2)
            self.assertIn(message, printed)

    @staticmethod
    def start(*arguments):
        """Exit code, what it printed."""
        printed = io.StringIO()
        with mock.patch.object(sys, "argv", ["gpu_ncf_torch.py", *arguments]), contextlib.redirect_stdout(printed), \
                contextlib.redirect_stderr(printed):
            try:
                peer.main()
            except SystemExit as end:
                return end.code, printed.getvalue()
        return 0, printed.getvalue()


if __name__ == "__main__":
    unittest.main()
