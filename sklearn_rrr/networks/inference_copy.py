"""Copies of networks for prediction only, in the form that runs fastest."""

import torch

from sklearn_rrr.networks.fused_activations import fuse_activations
from sklearn_rrr.networks.norm_folding import fold_norms


def make_inference_copy(network, device, fuse=True, memory_format=torch.channels_last):
    """Return a copy with folded norms on a device, for prediction only.

    Parameters
    ----------
    network : torch.nn.Module
        See :func:`fold_norms`.
    device : torch.device
        Device of the copy. On the CPU, convolutions in float32 also apply the activations.
    fuse : bool, default=True
        False leaves activations as they are, for bfloat16 or hooks.
    memory_format : torch.memory_format, default=torch.channels_last
        Memory format of the weights.

    Returns
    -------
    copy : torch.nn.Module
        It gives the same outputs up to rounding, and cannot be trained.
    """
    folded = fold_norms(network).to(device, memory_format=memory_format)
    return fuse_activations(folded) if fuse else folded
