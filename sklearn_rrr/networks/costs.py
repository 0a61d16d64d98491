"""Costs of a network: parameters, multiply-adds and latency."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._unwrapping import KIND, unwrap
from sklearn_rrr._validation import check_int
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.onednn_convolutions import use_onednn


class Latency(NamedTuple):
    """Time of one forward pass in milliseconds, and the conditions of the measurement."""

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
        Number of parameters, including frozen ones, without buffers.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import count_parameters
    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in _find_network(model)[0].parameters())


@shielded()
def count_macs(model, image_size=None):
    """Count the multiply-adds of convolutions and matrix products for one image, as RRR-Net does.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
        A module with input (1, 3, image_size, image_size), an image classifier, or a
        pipeline, search, pruner or selector of one.
    image_size : int or None, default=None
        Height and width in pixels; None uses the image size of the model.

    Returns
    -------
    macs : int
        Multiply-adds; each one is two floating-point operations.

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


@shielded()
def measure_latency(
    model, batch_size=1, image_size=None, device=None, n_threads=None, repeats=30, warmup=5
):
    """Measure the time of a forward pass.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
        A module runs unchanged on images (batch_size, 3, image_size, image_size). The network
        of an image classifier, or of one in a pipeline, search, pruner or selector, runs as in
        `predict`, with norms folded into convolutions; preprocessing is not timed.
    batch_size : int, default=1
        Images per pass.
    image_size : int or None, default=None
        Height and width in pixels; None uses the image size of the model.
    device : str or torch.device or None, default=None
        Device to run on; None uses the current one. The model returns to its device afterwards.
    n_threads : int or None, default=None
        CPU threads during the measurement; None leaves their number unchanged.
    repeats : int, default=30
        Number of timed passes.
    warmup : int, default=5
        Number of untimed passes before them.

    Returns
    -------
    latency : Latency
        Median in milliseconds and its distribution-free 95 % confidence interval, from order
        statistics; with fewer than 6 repeats, the range of the times.

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
        if module is not model:
            use_onednn(module)
        images = images.to(target)
        with _evaluating(module), threadpool_limits(n_threads):
            used = torch.get_num_threads()
            times = [_time(module, images) for _ in range(warmup + repeats)][warmup:]
    finally:
        module.to(home)
    low, high = median_interval(np.sort(times))
    return Latency(float(np.median(times)), low, high, repeats, batch_size, str(target), used)


@shielded()
def cost_report(models, batch_sizes=(1, 32), image_size=None, device=None, repeats=30):
    """Compare the costs of models.

    Parameters
    ----------
    models : list, dict, module or estimator
        Modules, fitted image classifiers, or pipelines, searches, pruners or selectors of
        classifiers; the keys of a dict name the rows.
    batch_sizes : tuple of int, default=(1, 32)
        Batch sizes at which to measure latency.
    image_size : int or None, default=None
        Height and width in pixels; None uses the image size of each model.
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
        raise ValueError("`models` must contain at least one model; got none.")
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
    """Return the module of a model, and its image size in prediction, or None."""
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
        raise ValueError("`image_size` is needed for a module without an `image_size` attribute.")
    images = torch.full((batch_size, 3, size, size), 0.5, device=_device(module))
    return module, images.contiguous(memory_format=torch.channels_last)


class _evaluating:
    """Context of eval mode without gradients; restores the former mode."""

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
    # The interval of the median needs times of single passes. torch.utils.benchmark.Timer returns
    # means or runs three passes per time, and importing it starts tools that build extensions.
    start = time.perf_counter()
    module(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return 1e3 * (time.perf_counter() - start)


def median_interval(ordered):
    """Return the 95 % interval of the median, with ranks from the binomial distribution."""
    n = len(ordered)
    low = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
    return float(ordered[low]), float(ordered[n - 1 - low])
