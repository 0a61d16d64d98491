"""Weights for backbones: bundled, torchvision's, a file or a state dict; strict and safe.

Nothing in a file is executed, and a hash is checked at every load of a bundled file or a
download.
"""

import hashlib
import os
import pickle
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sklearn_rrr._files import write_atomically
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import TORCHVISION

# The file of each backbone whose weights come with the package, and its SHA-256.
PRETRAINED = Path(__file__).parent / "pretrained"
BUNDLED = {
    "synth50": (
        "synth50.safetensors",
        "ed1ac3eae07bb768ff3a67cef7f1310200123e240b7e7db4e3c974b2800eaa78",
    ),
}


def load_backbone(name="synth50", weights="pretrained"):
    """Build a registered backbone and load its weights.

    Parameters
    ----------
    name : str, default="synth50"
        One of :func:`list_backbones`.
    weights : {"pretrained"}, str, path, dict or None, default="pretrained"
        "pretrained": for "synth50" the weights that come with the package; for
        torchvision's names their first ImageNet weights (IMAGENET1K_V1, the ones the
        paper reuses), downloaded once. The name of a torchvision weight enum entry such
        as "IMAGENET1K_V2". A path to a ``.pth`` or ``.safetensors`` file. A state dict.
        None: random, drawn from torch's generator.

    Returns
    -------
    backbone : Backbone
        In eval mode, on the CPU, in float32.
    pretrained : bool
        False if the weights are random.

    Raises
    ------
    ValueError
        Unknown name; weights that are damaged, unsafe, of another architecture or not
        finite; a bundled file that is missing; a download that fails; a wrong hash.

    Notes
    -----
    A backbone of your own, see :func:`register_backbone`, has no weights that "pretrained"
    could mean: it starts from random ones, and `pretrained` is False.

    Examples
    --------
    >>> from sklearn_rrr import load_backbone
    >>> backbone, pretrained = load_backbone("synth50")
    >>> backbone.depths, pretrained
    ((3, 4, 6, 3), True)
    """
    with torch.device("meta"):
        backbone = make_backbone(name)
    state, source = _resolve_weights(name, weights)
    if state is None:
        return make_backbone(name).eval(), False
    _load_strictly(backbone, state, source)
    return backbone.eval(), True


def _resolve_weights(name, weights):
    """Return (state dict or None, where it comes from)."""
    if weights is None:
        return None, None
    if isinstance(weights, dict):
        return weights, "the given state dict"
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            '`weights` must be "pretrained", the name of a torchvision weight, a path, '
            f"a state dict or None; got {type(weights).__name__}."
        )
    entries = _torchvision_weights(name)
    if weights == "pretrained":
        if name in BUNDLED:
            return _read_bundled(name)
        # A backbone that users register has none.
        return _download(entries["IMAGENET1K_V1"]) if entries else (None, None)
    if isinstance(weights, str) and weights in entries:
        return _download(entries[weights])
    if Path(weights).suffix not in (".pth", ".pt", ".safetensors"):
        names = ", ".join(map(repr, ("pretrained", *entries)))
        raise ValueError(
            f"`weights` must be {names}, a path to a .pth or .safetensors file, a state "
            f"dict or None for the backbone {name!r}; got {str(weights)!r}."
        )
    return read_weights(weights), str(weights)


def _read_bundled(name):
    """Read the weights that come with the package; their hash is checked at every load."""
    file, expected = BUNDLED[name]
    path = PRETRAINED / file
    cure = "Reinstall sklearn_rrr; weights=None starts from random weights."
    try:
        digest = _sha256(path)
    except OSError as error:
        raise ValueError(
            f"The bundled weights {path} are missing or not readable ({error.strerror}). {cure}"
        ) from error
    if digest != expected:
        raise ValueError(
            f"The bundled weights {path} have the SHA-256 {digest}, not {expected}: the file is "
            f"damaged or of another version, and was not used. {cure}"
        )
    return read_weights(path), str(path)


def _torchvision_weights(name):
    """Return {entry name: url} of torchvision's weights for a backbone."""
    if name not in TORCHVISION:
        return {}
    return {w.name: w.url for w in torchvision.models.get_model_weights(name)}


def _download(url):
    """Fetch a checkpoint once and check its hash at every load.

    torchvision publishes the first eight digits of the SHA-256 in the file's name. Those
    are checked always; the full digest is pinned beside the file at its first use.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    prefix = path.stem.rsplit("-", 1)[-1]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except RuntimeError as error:  # torch's word for a wrong hash
            raise ValueError(
                f"The download of {url} is damaged ({error}); a proxy may have answered in "
                f"its place. Nothing was kept. Fetch the file by other means and save it as "
                f"{path}, or give its path as `weights`."
            ) from error
        except (OSError, HTTPException) as error:
            raise ValueError(
                f"The weights {path.name} are not cached and could not be downloaded from "
                f"{url} ({error}). Either fetch the file on a machine that is online and "
                f"save it as {path}, or give its path as `weights`; "
                f"weights=None starts from random weights."
            ) from error
    _verify_hash(path, prefix)
    return read_weights(path), str(path)


def _verify_hash(path, prefix):
    digest = _sha256(path)
    pin = path.with_name(path.name + ".sha256")
    for expected in (prefix, pin.read_text().strip() if pin.exists() else prefix):
        if not digest.startswith(expected):
            raise ValueError(
                f"The cached weights {path} have the SHA-256 {digest}, which should begin with "
                f"{expected}: the file is truncated or not what it claims to be, and was not "
                "used. Delete it to download it again."
            )
    if not pin.exists():
        with suppress(OSError):  # a shared cache may be read-only
            write_atomically(pin, f"{digest}\n".encode())


def _sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_weights(path):
    """Read a state dict from a file without executing anything in it.

    Parameters
    ----------
    path : str or path
        A ``.safetensors`` file, or a ``.pth`` / ``.pt`` file of tensors only.

    Returns
    -------
    state : dict of str to torch.Tensor

    Raises
    ------
    ValueError
        If the file is missing, damaged, unsafe or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`weights` names {str(path)!r}, which is no file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no valid safetensors file: {error}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it is not a plain file of tensors, and loading it could "
            "execute code. Nothing was executed. Save the weights with "
            "torch.save(model.state_dict(), path) or as safetensors."
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{path} could not be read as weights: {type(error).__name__} {error}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} must hold a state dict; it holds a {type(state).__name__}.")
    return state


def check_state(state, expected, source, target, free=()):
    """Check that a state dict fits another one, which belongs to `target`.

    Parameters
    ----------
    state, expected : dict of str to torch.Tensor
    source, target : str
        What they are, for messages.
    free : tuple of str
        Beginnings of the keys whose number of rows may differ.

    Raises
    ------
    ValueError
        Naming the first key that is missing, unknown, of another shape or not finite.
    """
    if any(not isinstance(value, torch.Tensor) for value in state.values()):
        key = next(k for k, v in state.items() if not isinstance(v, torch.Tensor))
        raise ValueError(f"{source} is no state dict: {key!r} is a {type(state[key]).__name__}.")
    for key in expected:
        if key not in state and not _is_counter(key):
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is missing.")
    for key in state:
        if key not in expected:
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is not in it.")
    for key, value in expected.items():
        if _is_counter(key):
            continue
        rows = slice(1 if key.startswith(free) else 0, None)
        if state[key].shape[rows] != value.shape[rows] or state[key].ndim != value.ndim:
            raise ValueError(
                f"{source} does not fit {target!r}: {key!r} has the shape "
                f"{tuple(state[key].shape)}, not {tuple(value.shape)}."
            )
        if not torch.isfinite(state[key]).all():
            raise ValueError(f"{source} holds NaN or infinite values in {key!r}.")


def _is_counter(key):
    """Older files lack the counters of the norms; they do not enter any result."""
    return key.endswith("num_batches_tracked")


def _load_strictly(backbone, state, source):
    """Put `state` into a backbone on the meta device; any number of classes is fine."""
    expected = backbone.state_dict()
    check_state(state, expected, source, backbone.name, free=("fc.",))
    n_classes = len(state["fc.bias"])
    if len(state["fc.weight"]) != n_classes:
        raise ValueError(
            f"{source} does not fit {backbone.name!r}: 'fc.weight' has "
            f"{len(state['fc.weight'])} rows, 'fc.bias' {n_classes}."
        )
    backbone.fc = nn.Linear(backbone.n_features, n_classes, device="meta")
    clean = {
        key: torch.zeros((), dtype=torch.long) if _is_counter(key) else _own(state[key])
        for key in expected
    }
    backbone.load_state_dict(clean, assign=True)
    backbone.requires_grad_(True)


def _own(tensor):
    return tensor.detach().to(
        "cpu", torch.float32, copy=True, memory_format=torch.contiguous_format
    )
