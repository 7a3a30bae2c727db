"""Training speed of the same model in PyTorch on one GPU: samples resident, a batch drawn on the device, fused Adam.

  gpu_ncf_torch.py [--forms eager,graph,compiled] [--batches B,B] [--rows N --users N --videos N] [--seconds S]
                   [--device cuda|cpu]
                       prints {"torch", "cuda", "device", "results": [{"form", "batch", "samples_per_second",
                               "first_loss", "last_loss"}]}

eager: an operation a launch; graph: a step is one CUDA graph; compiled: the same of the model under torch.compile. A form
that cannot be had on the machine has "error" in place of figures. On a CPU there is eager alone.

first_loss is that of the first step, last_loss the mean of the last 10 of 200. All of it in fp32.
"""
import argparse
import json
import time

import torch

from ncf_torch import Ncf, Samples

FORMS = ("eager", "graph", "compiled")
WARM_UP_STEPS = 5  # before a graph is captured: libraries and compilers are ready then
LOSS_STEPS, LAST_STEPS = 200, 10


class Training:
    """All samples on the device, and steps over them in a shuffled order."""

    def __init__(self, options, batch, form):
        device = self.device = torch.device(options.device)
        torch.manual_seed(1)
        self.samples = Samples(options.rows, options.users, options.videos, device)
        self.places = torch.arange(batch, device=device)  # of the next step, in the order
        self.batch, self.form = batch, form
        self.model = Ncf(options.users, options.videos).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True, capturable=device.type == "cuda")
        self.predict = torch.compile(self.model) if form == "compiled" else self.model
        self.graph = None

    def step(self):
        """Returns: the loss, on the device."""
        if self.graph:
            self.graph.replay()
        else:
            self.loss = self.enqueue()
        return self.loss

    def enqueue(self):
        rows = self.samples.order[self.places % len(self.samples.order)]
        self.places += self.batch
        self.optimizer.zero_grad()
        loss = self.samples.loss(self.predict, rows)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def warm_up(self):
        """Returns: the first loss. The graph, if there is one, is ready then."""
        if self.form == "eager":
            return [self.step() for _ in range(WARM_UP_STEPS)][0].item()
        aside = torch.cuda.Stream()  # gradients made on the usual one could not be captured
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            losses = [self.step() for _ in range(WARM_UP_STEPS)]
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.enqueue()
        self.graph = graph
        return losses[0].item()

    def seconds_of(self, steps):
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return time.perf_counter() - start

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(options, batch, form):
    training = Training(options, batch, form)
    first = training.warm_up()
    for _ in range(LOSS_STEPS - WARM_UP_STEPS - LAST_STEPS):
        training.step()
    last = sum(training.step().item() for _ in range(LAST_STEPS)) / LAST_STEPS
    steps = max(1, round(options.seconds * 20 / training.seconds_of(20)))
    return {"samples_per_second": steps * batch / training.seconds_of(steps), "first_loss": first, "last_loss": last}


def main():
    def names(text):
        wrong = [name for name in text.split(",") if name not in FORMS]
        if wrong:
            raise argparse.ArgumentTypeError(f"got {wrong[0]}, expected some of {','.join(FORMS)}")
        return text.split(",")

    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--forms", type=names)
    parser.add_argument("--batches", type=lambda text: [int(batch) for batch in text.split(",")],
                        default=[4096, 16384, 65536, 262144])
    parser.add_argument("--rows", type=int, default=10_400_000)
    parser.add_argument("--users", type=int, default=7_176)
    parser.add_argument("--videos", type=int, default=10_728)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.forms = options.forms or (list(FORMS) if on_gpu else ["eager"])
    if not on_gpu and options.forms != ["eager"]:
        parser.error(f"--forms: got {','.join(options.forms)}, but a CPU has eager alone")
    if options.rows < max(options.batches):
        parser.error(f"--rows: {options.rows} are fewer than a batch of {max(options.batches)}")
    if on_gpu and not torch.cuda.is_available():
        parser.error("this PyTorch finds no GPU: give --device cpu, or one that is built for CUDA")
    results = []
    for form in options.forms:
        for batch in options.batches:
            torch.compiler.reset()
            try:
                found = measure(options, batch, form)
            except Exception as error:  # of compilers and of memory: the other forms are measured all the same
                found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            results.append({"form": form, "batch": batch, **found})
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda,
                      "device": torch.cuda.get_device_name() if on_gpu else "cpu", "results": results}))


if __name__ == "__main__":
    main()
