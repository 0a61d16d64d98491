"""What a network costs: parameters, multiply-adds, latency."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_rrr._unwrapping import KIND, unwrap
from sklearn_rrr._validation import check_int
from sklearn_rrr.networks.norm_folding import fold_norms


class Latency(NamedTuple):
    """Time of one forward pass in milliseconds, with what it was measured on."""

    median: float
    low: float
    high: float
    repeats: int
    batch_size: int
    device: str
    n_threads: int


def count_parameters(model):
    """Count the parameters of a module or of a fitted estimator's network.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
        A module, an image classifier, or a pipeline, search, pruner or selector of one.

    Returns
    -------
    n_parameters : int
        Frozen ones included, buffers not.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import count_parameters
    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in _find_network(model)[0].parameters())


def count_macs(model, image_size=None):
    """Count the multiply-adds of one image: convolutions and products, as the paper does.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
        A module, whose input is (1, 3, image_size, image_size), an image classifier, or a
        pipeline, search, pruner or selector of one.
    image_size : int or None, default=None
        Height and width in pixels; None takes the model's own.

    Returns
    -------
    macs : int
        Multiply-adds; twice as many floating-point operations.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import count_macs
    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), image_size=10)
    21600
    """
    module, images = _prepare(model, image_size, 1)
    with _evaluating(module), FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops() // 2


def measure_latency(
    model, batch_size=1, image_size=None, device=None, n_threads=None, repeats=30, warmup=5
):
    """Measure the time of a forward pass.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
        A module is run as it is, on (batch_size, 3, image_size, image_size). The network of an
        image classifier, or of one in a pipeline, search, pruner or selector, is run as in
        `predict`, with its norms folded into its convolutions; preprocessing is not timed.
    batch_size : int, default=1
        Images per pass.
    image_size : int or None, default=None
        Height and width in pixels; None takes the model's own.
    device : str or torch.device or None, default=None
        Where to run; None takes the device the model is on. The model is moved back.
    n_threads : int or None, default=None
        Threads on the CPU for this measurement; None leaves them as they are.
    repeats : int, default=30
        Timed passes.
    warmup : int, default=5
        Passes before them.

    Returns
    -------
    latency : Latency
        Median in milliseconds and the distribution-free 95 % confidence interval of the
        median, from order statistics; with fewer than 6 repeats, their range.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import measure_latency
    >>> latency = measure_latency(nn.Conv2d(3, 8, 3), image_size=16, repeats=10)
    >>> bool(latency.low <= latency.median <= latency.high)
    True
    """
    check_int("batch_size", batch_size, 1)
    check_int("repeats", repeats, 1)
    module, images = _prepare(model, image_size, batch_size)
    if module is not model:
        module = fold_norms(module)
    home = _device(module)
    target = home if device is None else torch.device(device)
    try:
        module.to(target)
        images = images.to(target)
        with _evaluating(module), threadpool_limits(n_threads):
            used = torch.get_num_threads()
            times = [_time(module, images) for _ in range(warmup + repeats)][warmup:]
    finally:
        module.to(home)
    low, high = median_interval(np.sort(times))
    return Latency(float(np.median(times)), low, high, repeats, batch_size, str(target), used)


def cost_report(models, batch_sizes=(1, 32), image_size=None, device=None, repeats=30):
    """Compare what models cost.

    Parameters
    ----------
    models : list, dict, module or estimator
        Modules, fitted image classifiers, or pipelines, searches, pruners or selectors of such;
        the keys of a dict name the rows.
    batch_sizes : tuple of int, default=(1, 32)
        Latency is measured for each.
    image_size : int or None, default=None
        Height and width in pixels; None takes each model's own.
    device : str or torch.device or None, default=None
        See :func:`measure_latency`.
    repeats : int, default=30
        See :func:`measure_latency`.

    Returns
    -------
    report : pandas.DataFrame
        A row per model: ``n_parameters``, ``macs``, ``megabytes`` (parameters and buffers
        as stored), and for each batch size the median latency and its interval in
        milliseconds, ``latency_<size>_ms``, ``latency_<size>_low``, ``latency_<size>_high``.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import cost_report
    >>> report = cost_report({"conv": nn.Conv2d(3, 8, 3)}, image_size=16, repeats=3)
    >>> report.loc["conv", "n_parameters"]
    np.int64(224)
    """
    if not isinstance(models, (dict, list, tuple)):
        models = [models]
    if not isinstance(models, dict):
        models = {f"{i}: {type(model).__name__}": model for i, model in enumerate(models)}
    if not models:
        raise ValueError("`models` must hold a model or more; got none.")
    rows = {}
    for name, model in models.items():
        module, _ = _find_network(model)
        tensors = [*module.parameters(), *module.buffers()]
        rows[name] = {
            "n_parameters": count_parameters(model),
            "macs": count_macs(model, image_size),
            "megabytes": sum(t.numel() * t.element_size() for t in tensors) / 1e6,
        }
        for size in batch_sizes:
            latency = measure_latency(model, size, image_size, device, repeats=repeats)
            rows[name][f"latency_{size}_ms"] = latency.median
            rows[name][f"latency_{size}_low"] = latency.low
            rows[name][f"latency_{size}_high"] = latency.high
    return pd.DataFrame.from_dict(rows, orient="index")


def _find_network(model):
    """Return the module of a model, and the image size that it predicts with, or None."""
    if isinstance(model, nn.Module):
        return model, getattr(model, "image_size", None)
    kind = f"a module, {KIND}"
    classifier, _ = unwrap(model, "module_", "image_size_", name="model", kind=kind)
    return classifier.module_, classifier.image_size_


def _device(module):
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _prepare(model, image_size, batch_size):
    module, size = _find_network(model)
    size = image_size or size
    if size is None:
        raise ValueError("`image_size` is needed for a module that has no `image_size` of its own.")
    images = torch.full((batch_size, 3, size, size), 0.5, device=_device(module))
    return module, images.contiguous(memory_format=torch.channels_last)


class _evaluating:
    """Eval mode without gradients, and the former mode back."""

    def __init__(self, module):
        self.module, self.inference = module, torch.inference_mode()

    def __enter__(self):
        self.modes = {m: m.training for m in self.module.modules()}
        self.module.eval()
        self.inference.__enter__()

    def __exit__(self, *error):
        self.inference.__exit__(*error)
        for module, mode in self.modes.items():
            module.training = mode


def _time(module, images):
    """Return the milliseconds of one pass."""
    # The interval of the median needs single passes: torch.utils.benchmark.Timer gives means of
    # blocks, or three passes for each time, and its import starts the tools that build extensions.
    start = time.perf_counter()
    module(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return 1e3 * (time.perf_counter() - start)


def median_interval(ordered):
    """95 % interval of the median: ranks from the binomial distribution."""
    n = len(ordered)
    low = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
    return float(ordered[low]), float(ordered[n - 1 - low])
