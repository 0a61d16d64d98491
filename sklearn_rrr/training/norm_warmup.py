"""Adaptation of norm statistics (RRR-Net, section 3.3)."""

from contextlib import contextmanager

from torch import nn


@contextmanager
def averaging_norms(module):
    """Reset the statistics of norms in training mode, and average them over batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
