"""Activation maps of a layer, for people and selectors to look at."""

import numpy as np
import torch

BATCH = 64  # images at a time


def activation_maps(network, group, images):
    """Return the activations that a group of channels passes to its next layer.

    Parameters
    ----------
    network : RRRNet
        Network in eval mode.
    group : ChannelGroup
        Group of C channels. For a residual stream, its last reader is the next layer.
    images : Tensor of shape (n, 3, S, S)
        RGB in [0, 1], or uint8.

    Returns
    -------
    maps : ndarray of shape (C, n, h, w)
        Activations after norm and ReLU, at least 0.
    """
    kept = []
    if group.readers[-1] == "head":
        hook = network.branches.register_forward_hook(lambda _, __, output: kept.append(output))
    else:
        reader = network.get_submodule(group.readers[-1])
        hook = reader.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            for batch in images.split(BATCH):
                network(batch.to(device))
    finally:
        hook.remove()
    return torch.cat(kept).transpose(0, 1).float().cpu().numpy()


def pick_images(images, number):
    """Load up to `number` of LabelledSet, spread evenly over the classes: (n, 3, S, S)."""
    order = np.argsort(images.labels.numpy(), kind="stable")
    picked = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return images.source.load(order[picked], images.image_size)
