"""Copies of networks for prediction only, in the form that runs fastest."""

import torch

from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.onednn_convolutions import use_onednn


def make_inference_copy(network, device, onednn=True, memory_format=torch.channels_last):
    """Return a copy with folded norms on a device, for prediction only.

    Parameters
    ----------
    network : torch.nn.Module
        See :func:`fold_norms`.
    device : torch.device
        Device of the copy. On the CPU, convolutions in float32 run oneDNN's kernels directly.
    onednn : bool, default=True
        False leaves convolutions and activations as they are, for bfloat16 or hooks.
    memory_format : torch.memory_format, default=torch.channels_last
        Memory format of the weights.

    Returns
    -------
    copy : torch.nn.Module
        It gives the same outputs up to rounding, and cannot be trained.
    """
    folded = fold_norms(network).to(device, memory_format=memory_format)
    return use_onednn(folded) if onednn else folded
