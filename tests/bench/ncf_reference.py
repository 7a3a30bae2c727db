"""Gradients of ncf in plain NumPy, a row at a time: what the peers of bench/peers are compared with."""
import numpy


def gradients(w, features, user, video, label, keep=None):
    """Of the mean squared error. `keep`: what the outputs of the first hidden layer are multiplied by, [rows, 32].
    Weights and gradients are named and shaped as those of Ncf in bench/peers/ncf_torch.py."""
    g = {name: numpy.zeros_like(array) for name, array in w.items()}
    keep = numpy.ones((len(label), 32)) if keep is None else keep

    def back(layer, x, dy):
        g[f"{layer}.weight"] += numpy.outer(dy, x)
        g[f"{layer}.bias"] += dy
        return w[f"{layer}.weight"].T @ dy

    for u, v, y, kept in zip(user, video, label, keep):
        def dense(layer, x):
            return w[f"{layer}.weight"] @ x + w[f"{layer}.bias"]

        content = numpy.maximum(dense("content", features[v]), 0)
        x = numpy.concatenate([w["user_table.weight"][u], w["video_table.weight"][v], content])
        h1 = numpy.maximum(dense("hidden1", x), 0) * kept
        h2 = numpy.maximum(dense("hidden2", h1), 0)
        dy = 2 * (dense("output", h2) - y) / len(label)
        dh2 = back("output", h2, dy) * (h2 > 0)
        dx = back("hidden1", x, back("hidden2", h1, dh2) * (h1 > 0) * kept)
        g["user_table.weight"][u] += dx[:32]
        g["video_table.weight"][v] += dx[32:64]
        back("content", features[v], dx[64:] * (content > 0))
    return g


def adams_first(gradient, rate=1e-3):
    """What Adam takes from a weight in its first step."""
    return rate * gradient / (abs(gradient) + 1e-8)
