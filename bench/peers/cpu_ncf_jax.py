"""Training speed of ncf in JAX on a CPU: optax's Adam, a batch gathered from all samples in a shuffled order.

  cpu_ncf_jax.py --global-batch B [--rows N --users N --videos N] [--seconds S]
                    prints {"global_batch", "steps", "samples_per_second", "first_loss", "last_loss"}

Steps are the rounds of a scan, in one compiled call that updates weights in place: none waits for Python, and memory
for what they compute is found once a call.
"""
import functools
import os
import time

import jax
import numpy
import optax
from jax import lax
from jax import numpy as jnp

from cpu_ncf import measure, parse_options

FEATURES = 15
NOISE = 0.1
LAYERS = {"content": (FEATURES, 32), "hidden1": (96, 32), "hidden2": (32, 16), "output": (16, 1)}
CORES = 2
ADAM = optax.adam(1e-3)
jax.config.update("jax_threefry_partitionable", False)  # half the rounds of the generator; it is for many devices


def samples(rows, users, videos):
    """All samples, a shuffled order of them and the videos' features: as Samples in ncf_torch.py."""
    draw = numpy.random.default_rng(1)
    user = draw.integers(users, size=rows, dtype=numpy.int32)
    video = draw.integers(videos, size=rows, dtype=numpy.int32)
    of_users, of_videos = (0.5 * draw.standard_normal(n, numpy.float32) for n in (users, videos))
    label = 1 + of_users[user] + of_videos[video] + NOISE * draw.standard_normal(rows, numpy.float32)
    return jax.tree.map(jnp.asarray, {
        "user": user, "video": video, "label": label, "order": draw.permutation(rows).astype(numpy.int32),
        "features": draw.standard_normal((videos, FEATURES), numpy.float32)})


def initial_weights(key, users, videos):
    keys = iter(jax.random.split(key, 2 + len(LAYERS)))
    weights = {"user_table": jax.random.normal(next(keys), (users, 32)),
               "video_table": jax.random.normal(next(keys), (videos, 32))}
    for name, shape in LAYERS.items():
        matrix = jax.random.uniform(next(keys), shape, minval=-1, maxval=1) / shape[0] ** 0.5
        weights[name] = {"matrix": matrix, "bias": jnp.zeros(shape[1])}
    return weights


def predict(weights, features, user, video, drop):
    """The model of configs/ncf.yaml, with `drop` after its first hidden layer. [rows], [rows] -> [rows]"""
    def dense(name, x):
        return x @ weights[name]["matrix"] + weights[name]["bias"]

    content = jax.nn.relu(dense("content", features[video]))
    x = jnp.concatenate([weights["user_table"][user], weights["video_table"][video], content], 1)
    x = drop(jax.nn.relu(dense("hidden1", x)))
    return dense("output", jax.nn.relu(dense("hidden2", x))).squeeze(1)


def drop_a_fifth(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0)


def loss(weights, data, rows, drop):
    """The mean squared error of the samples at `rows`."""
    predicted = predict(weights, data["features"], data["user"][rows], data["video"][rows], drop)
    return jnp.mean((predicted - data["label"][rows]) ** 2)


@functools.partial(jax.jit, static_argnames=("batch", "steps"), donate_argnames="state")
def train(state, data, key, batch, steps):
    """Returns: the state after `steps` steps, their losses. A state is weights, Adam's and the steps there were."""
    def step(state, _):
        weights, adam, done = state
        start = done % (len(data["order"]) // batch) * batch
        rows = lax.dynamic_slice_in_dim(data["order"], start, batch)
        drop = functools.partial(drop_a_fifth, jax.random.fold_in(key, done))
        value, gradients = jax.value_and_grad(loss)(weights, data, rows, drop)
        updates, adam = ADAM.update(gradients, adam)
        return (optax.apply_updates(weights, updates), adam, done + 1), value

    return lax.scan(step, state, length=steps)


class Training:
    """All samples, and steps over them."""

    def __init__(self, options):
        weights_key, self.key = jax.random.split(jax.random.key(1))
        self.data = samples(options.rows, options.users, options.videos)
        weights = initial_weights(weights_key, options.users, options.videos)
        self.state = (weights, ADAM.init(weights), jnp.int32(0))
        self.batch = options.global_batch

    def take(self, steps):
        """Returns: seconds, losses."""
        start = time.perf_counter()
        self.state, losses = jax.block_until_ready(train(self.state, self.data, self.key, self.batch, steps))
        return time.perf_counter() - start, losses


def main():
    options = parse_options(__doc__)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # XLA starts a thread for each core it may use
    print(measure(Training(options), options))


if __name__ == "__main__":
    main()
