"""The peers of ncf on a CPU train it: beside plain NumPy.   cpu_ncf_test.py, of a Python with PyTorch, JAX and optax"""
import argparse
import contextlib
import io
import json
import pathlib
import subprocess
import sys
import unittest
from unittest import mock

import jax
import numpy
import torch

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench" / "peers"
sys.path.insert(0, str(PEERS))
import cpu_fields_torch  # noqa: E402
import cpu_ncf_jax  # noqa: E402
import cpu_ncf_torch  # noqa: E402
import ncf_reference  # noqa: E402

BATCH, ROWS, USERS, VIDEOS = 64, 640, 9, 12
SIZES = ["--global-batch", str(BATCH), "--rows", str(ROWS), "--users", str(USERS), "--videos", str(VIDEOS)]


def options(form=None):
    return argparse.Namespace(form=form, global_batch=BATCH, rows=ROWS, users=USERS, videos=VIDEOS)


def doubles(array):
    return numpy.asarray(array).astype(numpy.float64)


class Torch(unittest.TestCase):
    def check_a_step(self, form):
        t = cpu_ncf_torch.Training(options(form))
        t.model.eval()  # no dropout
        rows = t.order[:BATCH]
        before = {name: doubles(array.detach().clone()) for name, array in t.model.named_parameters()}
        loss = t.step()
        wanted = ncf_reference.gradients(before, doubles(t.model.features), *(
            column[rows].numpy() for column in (t.samples.user, t.samples.video, t.samples.label)))
        self.assertGreater(loss, .5)
        self.assertEqual(len(wanted), 10)
        for name, array in t.model.named_parameters():
            self.assertGreater(abs(wanted[name]).max(), 1e-3, name)
            gradient = doubles(array.grad)
            numpy.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-6, err_msg=name)
            numpy.testing.assert_allclose(before[name] - doubles(array.detach()), ncf_reference.adams_first(gradient),
                                          atol=2e-7, err_msg=name)

    def test_an_eager_step_has_the_gradients_of_the_model_and_adams_update(self):
        self.check_a_step("eager")

    def test_a_compiled_step_has_them_too(self):
        self.check_a_step("compiled")

    def test_other_units_are_dropped_each_time(self):
        t = cpu_ncf_torch.Training(options("eager"))
        self.assertEqual(len({t.loss(t.model, t.order[:BATCH]).item() for _ in range(4)}), 4)

    def test_steps_take_every_row_once_an_epoch(self):
        t = cpu_ncf_torch.Training(options("eager"))
        for _ in range(2):
            taken = torch.cat([t.next_rows() for _ in range(ROWS // BATCH)])
            self.assertEqual(sorted(taken.tolist()), list(range(ROWS)))


def jax_weights(weights):
    """Named and shaped as the reference's."""
    named = {f"{name}.weight": doubles(weights[name]) for name in ["user_table", "video_table"]}
    for name in cpu_ncf_jax.LAYERS:
        named[f"{name}.weight"] = doubles(weights[name]["matrix"]).T
        named[f"{name}.bias"] = doubles(weights[name]["bias"])
    return named


class Jax(unittest.TestCase):
    def test_a_step_has_the_gradients_of_the_model_with_dropout_and_adams_update(self):
        t = cpu_ncf_jax.Training(options())
        rows = t.data["order"][:BATCH]
        keep = cpu_ncf_jax.drop_a_fifth(jax.random.fold_in(t.key, 0), jax.numpy.ones((BATCH, 32)))
        weights = t.state[0]
        before = jax_weights(weights)
        got = jax_weights(jax.grad(cpu_ncf_jax.loss)(weights, t.data, rows, lambda x: x * keep))
        wanted = ncf_reference.gradients(before, doubles(t.data["features"]), *(
            numpy.asarray(t.data[name][rows]) for name in ["user", "video", "label"]), doubles(keep))
        t.take(1)
        after = jax_weights(t.state[0])
        self.assertEqual(len(wanted), 10)
        for name, gradient in wanted.items():
            self.assertGreater(abs(gradient).max(), 1e-3, name)
            numpy.testing.assert_allclose(got[name], gradient, rtol=1e-3, atol=1e-6, err_msg=name)
            numpy.testing.assert_allclose(before[name] - after[name], ncf_reference.adams_first(got[name]), atol=2e-5,
                                          err_msg=name)

    def test_it_drops_a_fifth(self):
        keep = numpy.asarray(cpu_ncf_jax.drop_a_fifth(jax.random.key(3), jax.numpy.ones((1000, 32))))
        self.assertAlmostEqual((keep == 0).mean(), .2, delta=.01)
        numpy.testing.assert_allclose(keep[keep != 0], 1.25)

    def test_steps_at_once_are_steps_one_by_one(self):
        at_once, one_by_one = cpu_ncf_jax.Training(options()), cpu_ncf_jax.Training(options())
        epoch = ROWS // BATCH
        losses = at_once.take(epoch + 1)[1]
        self.assertEqual(len(losses), epoch + 1)
        for loss in losses:
            numpy.testing.assert_allclose(one_by_one.take(1)[1], loss, rtol=1e-5)


class Fields(unittest.TestCase):
    def test_dots_and_cross_layers_are_the_plain_loops(self):
        torch.manual_seed(3)
        user, video = torch.tensor([4, 0]), torch.tensor([7, 11])
        for name, make_model in cpu_fields_torch.MODELS.items():
            model = make_model(USERS, VIDEOS).eval()
            fields, numbers = model.fields(user, video)
            if name == "dlrm":
                bottom = model.bottom_output(model.bottom(numbers))
                vectors = torch.cat([bottom, fields], 1).view(2, -1, cpu_fields_torch.WIDTH)
                dots = [(vectors[:, i] * vectors[:, j]).sum(1) for i in range(vectors.shape[1]) for j in range(i)]
                wanted = model.output(model.top(torch.cat([bottom, fields, torch.stack(dots, 1)], 1)))
            else:
                x0 = x = torch.cat([fields, numbers], 1)
                for layer in model.cross:
                    x = x0 * layer(x) + x
                wanted = model.output(torch.cat([x, model.hidden(x0)], 1))
            torch.testing.assert_close(model(user, video), wanted[:, 0])

    def test_their_loss_falls(self):
        for name, make_model in cpu_fields_torch.MODELS.items():
            training = cpu_ncf_torch.Training(options("eager"), make_model)
            losses = training.take(60)[1]
            self.assertLess(sum(losses[-10:]), .9 * sum(losses[:10]), name)


class Programs(unittest.TestCase):
    def check_found(self, printed):
        found = json.loads(printed)
        self.assertEqual(found["global_batch"], BATCH)
        self.assertGreater(found["samples_per_second"], 0)
        self.assertLess(found["last_loss"], found["first_loss"])

    def test_they_print_what_they_found_and_the_loss_falls(self):
        for peer, form in [(cpu_ncf_torch, ["eager"]), (cpu_ncf_jax, [])]:
            code, printed = self.start(peer, *form, *SIZES, "--seconds", "0.2")
            self.assertEqual(code, 0)
            self.check_found(printed)

    def test_two_processes_do_too(self):
        command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", PEERS / "cpu_ncf_torch.py", "ddp"]
        self.check_found(subprocess.run([sys.executable, *command, *SIZES, "--seconds", "0.2"], check=True,
                                        stdout=subprocess.PIPE, text=True).stdout)

    def test_they_refuse_a_batch_of_more_rows_than_there_are(self):
        for peer, form in [(cpu_ncf_torch, ["eager"]), (cpu_ncf_jax, [])]:
            code, printed = self.start(peer, *form, *SIZES, "--rows", "63")
            self.assertEqual(code, 2)
            self.assertIn("--rows: 63 are fewer than a batch of 64", printed)

    @staticmethod
    def start(peer, *arguments):
        """Exit code, what it printed."""
        printed = io.StringIO()
        with mock.patch.object(sys, "argv", [peer.__name__, *arguments]), contextlib.redirect_stdout(printed), \
                contextlib.redirect_stderr(printed):
            try:
                peer.main()
            except SystemExit as end:
                return end.code, printed.getvalue()
        return 0, printed.getvalue()


if __name__ == "__main__":
    unittest.main()
