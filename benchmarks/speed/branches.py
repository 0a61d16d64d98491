"""Parts that time networks of several branches, batch by batch."""

import time

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.contenders import (
    BACKBONE,
    BATCH,
    REDUCED,
    SIZE,
    as_floats,
    build,
    cut_photos,
    interleave,
)
from sklearn_rrr.networks.inference_copy import make_inference_copy
from sklearn_rrr.training.loop import make_net
from sklearn_rrr.training.memory import keeping_memory
from sklearn_rrr.training.settings import Settings


def make_step(n_branches, backbone=BACKBONE, form="auto", bf16=False):
    """Return a function that runs 3 training steps of 1_1_1_1 as `fit` does."""
    network = build(backbone, n_branches=n_branches, blocks=REDUCED)
    network.freeze("branches").set_branch_form(form)
    net = make_net(network, Settings(max_epochs=1, bf16=bf16))
    pieces, labels = cut_photos(BATCH, (SIZE, SIZE))
    batch = as_floats(pieces, SIZE), (torch.from_numpy(labels), torch.ones(BATCH))

    def steps():
        with keeping_memory(), net.folded_stump():
            net.train_step(batch)
            start = time.perf_counter()
            for _ in range(3):
                net.train_step(batch)
            return (time.perf_counter() - start) / 3

    return steps


def make_prediction(n_branches):
    """Return a function that passes forward through 1_1_1_1 as `predict` does."""
    network = build(n_branches=n_branches, blocks=REDUCED).eval()
    network = make_inference_copy(network, torch.device("cpu"))
    images = as_floats(cut_photos(BATCH, (SIZE, SIZE))[0], SIZE)
    images = images.contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode(), keeping_memory():
            network(images)
            start = time.perf_counter()
            for _ in range(5):
                network(images)
            return (time.perf_counter() - start) / 5

    return run


def branches(rounds, numbers=(1, 8, 32)):
    """Time of a batch of 32 against the number of branches, at equal total size."""
    makers = {"training step": make_step, "prediction": make_prediction}
    contenders = {(what, b): make(b) for what, make in makers.items() for b in numbers}
    seconds = interleave(contenders, rounds)
    for (what, b), value in seconds.items():
        ratio = value / seconds[what, 1]
        yield {"contender": f"{what}, {b} branches", "ms": 1e3 * value, "times one branch": ratio}


def kernels(rounds, numbers=(1, 32)):
    """Milliseconds of a training step of 32 images by kind of layer, with torch's profiler."""
    columns = {}
    for b in numbers:
        steps = make_step(b)
        steps()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as measured:
            for _ in range(rounds):
                steps()
        sums = pd.Series(dtype=float)
        for event in measured.key_averages(group_by_input_shape=True):
            kind = _kind(event.key, event.input_shapes)
            sums[kind] = sums.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / (4 * rounds)
        columns[f"{b} branches"] = sums
    for kind, row in pd.DataFrame(columns).sort_values("1 branches", ascending=False).iterrows():
        yield {"contender": kind} | row.to_dict()


def _kind(key, shapes):
    """Return the kind of layer that an operator of torch's profiler belongs to."""
    if "norm" in key:
        return "norms"
    if "conv" not in key:
        return "others"
    weights = [shape for shape in shapes if len(shape) == 4][-1:]
    if not weights or "weight" in key:
        return "others"
    *_, inputs, kernel, _ = weights[0]
    layer = "1x1" if kernel == 1 else "depthwise" if inputs == 1 else "other"
    return f"{layer} convolutions, {'backward' if 'backward' in key else 'forward'}"


def forms(rounds):
    """Training step of resnet152 as 1_1_1_1 by form of the branches' convolutions, in bf16."""
    cases = [(b, form) for b in (8, 32) for form in ("auto", "grouped", "matrix", "looped")]
    contenders = {(b, form): make_step(b, "resnet152", form, bf16=True) for b, form in cases}
    seconds = interleave(contenders, rounds)
    for (b, form), value in seconds.items():
        ratio = value / seconds[b, "auto"]
        yield {"contender": f"{b} branches, {form}", "ms a step": 1e3 * value, "times auto": ratio}
