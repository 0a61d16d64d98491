"""Norm warm-up: adapt the norm statistics of frozen parts (RRR-Net, section 3.3)."""

from contextlib import contextmanager

import torch
from torch import nn

from sklearn_rrr.training.batches import EpochBatches
from sklearn_rrr.training.devices import explained_memory


def warm_up_norms(net, images):
    """Adapt the norm statistics of the frozen parts to the images (section 3.3)."""
    seed = net.settings.seed
    sampler = EpochBatches(len(images), net.settings.batch_size, seed + 1)
    net.augmentation_generator_.manual_seed(seed + 1)
    frozen = net.module_.eval().frozen_parts()
    frozen.train()
    forward = net.module_ if len(frozen) > 1 else net.module_.forward_stump
    with explained_memory(net.settings.batch_size), torch.no_grad(), averaging_norms(frozen):
        for _ in range(net.settings.norm_warmup_epochs):
            for batch, _ in net.load(images, sampler):
                batch = net.prepare(batch, training=True)
                with net.autocast():  # only the forward pass, not the augmentation
                    forward(batch)
    frozen.eval()


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
