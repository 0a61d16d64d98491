"""Activation maps of a layer, for people and selectors to look at."""

import numpy as np
import torch

from sklearn_rrr.backbones.backbone import HalfTurn

BATCH = 64  # images at a time


def activation_maps(network, group, images):
    """Return the activations that a group of channels passes to its next layer.

    Parameters
    ----------
    network : RRRNet
        Network in eval mode.
    group : ChannelGroup
        Group of C channels. For a stream, the last layer that reads it is the next layer.
    images : Tensor of shape (n, 3, S, S)
        RGB in [0, 1], or uint8.

    Returns
    -------
    maps : ndarray of shape (C, n, h, w)
        Activations after norm and activation function, at least 0: where a stream has no activation
        function, their absolute values.
    """
    kept, last = [], network.branches[-1][-1]
    if group.levels and network.get_submodule(group.levels[-1]) is last:
        hook = last.register_forward_hook(lambda _, __, output: kept.append(output))
    else:
        # A follower in a block without an expansion reads the stream itself.
        layers = group.followers if group.is_stream and group.followers else group.readers
        layer = [name for name in layers if name != "head"][-1]
        reader = network.get_submodule(layer)
        hook = reader.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            for batch in images.split(BATCH):
                network(batch.to(device))
    finally:
        hook.remove()
    maps = torch.cat(kept)
    for layer in network.stump:
        if isinstance(layer, HalfTurn):
            maps = layer(maps)  # upright, as the images are
    return maps.transpose(0, 1).float().abs().cpu().numpy()


def pick_images(images, number):
    """Load up to `number` of LabelledSet, spread evenly over the classes: (n, 3, S, S)."""
    order = np.argsort(images.labels.numpy(), kind="stable")
    picked = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return images.source.load(order[picked], images.image_size)
