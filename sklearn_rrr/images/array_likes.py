"""Convert tensors, columns and frames of several libraries, or say why that is impossible.

This needs no torch: an object is no tensor if torch is not imported.
"""

import os
import sys

import numpy as np
from PIL import Image


def is_tensor(item):
    """Tell whether an object is a torch.Tensor."""
    return isinstance(item, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_picture(item):
    """Tell whether an object is a PIL image, or an array or tensor of at least 2 axes."""
    if isinstance(item, np.ndarray) or is_tensor(item):
        return item.ndim >= 2
    return isinstance(item, Image.Image)


def is_image(item):
    """Tell whether an object is a picture or the path of one."""
    return isinstance(item, (str, os.PathLike)) or is_picture(item)


def as_numpy(item, name="it"):
    """Convert an array-like, or a tensor on any device, to an array.

    Raises
    ------
    TypeError
        If it is a tensor without values, or with another layout than an array has.
    ValueError
        If values are masked.
    """
    if is_tensor(item):
        item = _tensor_as_numpy(item.detach(), name)
    check_masked(item, name)
    return np.asarray(item)


def is_masked(item):
    """Tell whether an object is a NumPy array or number of which something is masked."""
    return isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item)


def check_masked(item, name):
    """Raise if an array has masked values: a conversion would drop the mask in silence."""
    if is_masked(item):
        raise ValueError(f"{name} has masked values, which mean nothing here; call .filled(0).")


def _tensor_as_numpy(tensor, name):
    layout = str(tensor.layout).removeprefix("torch.")
    kinds = {
        "nested": tensor.is_nested,
        layout: layout != "strided",
        "quantised": tensor.is_quantized,
        "meta": tensor.is_meta,
    }
    if found := [kind for kind, applies in kinds.items() if applies]:
        raise TypeError(
            f"{name} is a tensor of the kind {found[0]!r}; pass a dense one with values, or arrays."
        )
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def open_column(X):
    """Return a list if X is one column of vectors or nested lists; else X."""
    shape = getattr(X, "shape", ())
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or 0 in shape:
        return X
    column = np.asarray(X)
    if column.dtype != object or column.ndim > 2:
        return X
    items = column.ravel().tolist()
    is_vector = isinstance(items[0], np.ndarray) and items[0].ndim == 1
    return list(map(_nest, items)) if is_vector or isinstance(items[0], (list, tuple)) else X


def _nest(item):
    """Return arrays of arrays, as polars returns nested lists, as lists of arrays."""
    if isinstance(item, np.ndarray) and item.dtype == object:
        return list(map(_nest, item))
    return item


def check_columns(X):
    """Raise if a frame of several columns contains anything but numbers in dense columns."""
    if not hasattr(X, "columns") or not len(X):
        return
    if any(type(dtype).__name__ == "SparseDtype" for dtype in X.dtypes):
        raise TypeError("X has sparse columns, but images are dense; pass X.sparse.to_dense().")
    if len(set(X.columns)) < len(X.columns):
        raise ValueError("X has several columns of the same name; rename them, or pass an array.")
    for i, name in enumerate(X.columns):
        first = next(iter(X.iloc[:, i] if hasattr(X, "iloc") else X[name]))
        if isinstance(first, str) and _is_number(first):
            raise ValueError(
                f"X contains strings, such as {first!r} in the column {name!r}; convert them to "
                "numbers: X.astype(float)."
            )
        if is_image(first):
            raise ValueError(
                f"X has {X.shape[1]} columns, and {name!r} contains images or paths; pass that "
                f"column alone: X[{name!r}]."
            )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
