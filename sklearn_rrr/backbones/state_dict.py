"""Check state dicts, and load them strictly."""

import torch
from torch import nn


def check_state(state, expected, source, target, free=()):
    """Check that a state dict fits `target`, whose state dict is `expected`.

    Parameters
    ----------
    state, expected : dict of str to torch.Tensor
    source, target : str
        Names of `state` and `expected` in messages.
    free : tuple of str, default=()
        Prefixes of the keys whose number of rows may differ.

    Raises
    ------
    ValueError
        If a key is missing, unexpected, of another shape or not finite; names the first one.
    """
    if any(not isinstance(value, torch.Tensor) for value in state.values()):
        key = next(k for k, v in state.items() if not isinstance(v, torch.Tensor))
        raise ValueError(f"{source} is not a state dict: {key!r} is a {type(state[key]).__name__}.")
    for key in expected:
        if key not in state and not is_counter(key):
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is missing.")
    for key in state:
        if key not in expected:
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is unexpected.")
    for key, value in expected.items():
        if is_counter(key):
            continue
        rows = slice(1 if key.startswith(free) else 0, None)
        if state[key].shape[rows] != value.shape[rows] or state[key].ndim != value.ndim:
            raise ValueError(
                f"{source} does not fit {target!r}: {key!r} has the shape "
                f"{tuple(state[key].shape)}, not {tuple(value.shape)}."
            )
        if not torch.isfinite(state[key]).all():
            raise ValueError(f"{source} contains NaN or infinite values in {key!r}.")


def is_counter(key):
    """Tell whether a key is a norm's counter; older files lack them, and they have no effect."""
    return key.endswith("num_batches_tracked")


def load_strictly(backbone, state, source):
    """Load `state`, with any number of classes, into a backbone on the meta device."""
    expected, state = backbone.state_dict(), _use_own_names(state, backbone.published)
    check_state(state, expected, source, backbone.name, free=("fc.",))
    n_classes = len(state["fc.bias"])
    if len(state["fc.weight"]) != n_classes:
        raise ValueError(
            f"{source} does not fit {backbone.name!r}: 'fc.weight' has "
            f"{len(state['fc.weight'])} rows, 'fc.bias' {n_classes}."
        )
    backbone.fc = nn.Linear(backbone.n_features, n_classes, device="meta")
    clean = {
        key: torch.zeros((), dtype=torch.long) if is_counter(key) else _own(state[key])
        for key in expected
    }
    backbone.load_state_dict(clean, assign=True)
    backbone.requires_grad_(True)


def _use_own_names(state, published):
    """Return a state dict whose keys have the names of our layers instead of published ones."""
    own = {theirs: ours for ours, theirs in published.items()}
    renamed = {}
    for key, value in state.items():
        layer, _, leaf = str(key).rpartition(".")
        renamed[f"{own[layer]}.{leaf}" if layer in own else key] = value
    return renamed


def _own(tensor):
    return tensor.detach().to(
        "cpu", torch.float32, copy=True, memory_format=torch.contiguous_format
    )
