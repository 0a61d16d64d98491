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
    names, is_published = _find_names(backbone, state)  # messages have the names of the file
    expected = {names[key]: value for key, value in backbone.state_dict().items()}
    weight, bias = names["fc.weight"], names["fc.bias"]
    check_state(state, expected, source, backbone.name, free=(weight, bias))
    n_classes = len(state[bias])
    if len(state[weight]) != n_classes:
        raise ValueError(
            f"{source} does not fit {backbone.name!r}: {weight!r} has "
            f"{len(state[weight])} rows, {bias!r} {n_classes}."
        )
    backbone.fc = nn.Linear(backbone.n_features, n_classes, device="meta")
    clean = {
        key: torch.zeros((), dtype=torch.long) if is_counter(key) else _own(state[theirs])
        for key, theirs in names.items()
    }
    if is_published and backbone.turned:
        clean = {key: x.flip((2, 3)) if x.ndim == 4 else x for key, x in clean.items()}
    backbone.load_state_dict(clean, assign=True)
    backbone.requires_grad_(True)


def _find_names(backbone, state):
    """Return the names in `state` of a backbone's tensors, by their own.

    They are the published names or the same; the second result tells which.
    """
    pairs = [(key, key.rpartition(".")) for key in backbone.state_dict()]
    published = {
        key: f"{backbone.published.get(layer, layer)}.{leaf}" for key, (layer, _, leaf) in pairs
    }
    own = {key: key for key in published}
    is_published = len(state.keys() & published.values()) > len(state.keys() & own)
    return (published if is_published else own), is_published


def _own(tensor):
    return tensor.detach().to(
        "cpu", torch.float32, copy=True, memory_format=torch.contiguous_format
    )
