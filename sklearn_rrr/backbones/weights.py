"""Load backbone weights strictly and safely from the package, torchvision or a file.

No code in a file is executed. The hash of bundled and downloaded files is checked at every
load.
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

# File and SHA-256 of the weights bundled with the package, by backbone.
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
        "pretrained" means the bundled weights for "synth50", and for torchvision's names
        their first ImageNet weights (IMAGENET1K_V1, reused by the paper), downloaded once.
        Or the name of a torchvision weight, such as "IMAGENET1K_V2"; a path to a ``.pth``,
        ``.pt`` or ``.safetensors`` file; or a state dict. None draws random weights from
        torch's generator.

    Returns
    -------
    backbone : Backbone
        In eval mode, on the CPU, in float32.
    pretrained : bool
        False if the weights are random.

    Raises
    ------
    ValueError
        If the name is unknown, the weights are missing, damaged, unsafe, not finite or from
        another architecture, a download fails, or a hash is wrong.
    TypeError
        If `weights` has an unsupported type.

    Notes
    -----
    A backbone that you register, see :func:`register_backbone`, has no pre-trained weights:
    with "pretrained" it starts from random weights, and `pretrained` is False.

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
    """Return the state dict and its source; (None, None) means random weights."""
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
        # A backbone registered by a user has no pre-trained weights.
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
    """Read the bundled weights after checking their hash."""
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
            f"damaged or from another version, and was not used. {cure}"
        )
    return read_weights(path), str(path)


def _torchvision_weights(name):
    """Return a dict from the names of torchvision's weights for a backbone to URLs."""
    if name not in TORCHVISION:
        return {}
    return {w.name: w.url for w in torchvision.models.get_model_weights(name)}


def _download(url):
    """Download a checkpoint once and check its hash at every load.

    torchvision's file names contain the first eight digits of the SHA-256, which are always
    checked. The full digest is stored beside the file at its first use and checked later.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    prefix = path.stem.rsplit("-", 1)[-1]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except RuntimeError as error:  # torch raises it for a wrong hash
            raise ValueError(
                f"The download of {url} is damaged ({error}); a proxy may have sent another "
                f"file. Nothing was saved. Download the file by other means and save it as "
                f"{path}, or pass its path as `weights`."
            ) from error
        except (OSError, HTTPException) as error:
            raise ValueError(
                f"The weights {path.name} are not cached and could not be downloaded from "
                f"{url} ({error}). Either download the file on a machine that is online and "
                f"save it as {path}, or pass its path as `weights`; "
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
                f"{expected}: the file is truncated or not the published one, and was not "
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
    """Read a state dict from a file without executing code in it.

    Parameters
    ----------
    path : str or path
        A ``.safetensors`` file, or a ``.pth`` or ``.pt`` file with only tensors.

    Returns
    -------
    state : dict of str to torch.Tensor

    Raises
    ------
    ValueError
        If the file is missing, damaged, unsafe or contains no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`weights` names {str(path)!r}, which is not a file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a valid safetensors file: {error}") from error
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
        raise ValueError(f"{path} must contain a state dict; it contains a {type(state).__name__}.")
    return state


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
        if key not in state and not _is_counter(key):
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is missing.")
    for key in state:
        if key not in expected:
            raise ValueError(f"{source} does not fit {target!r}: {key!r} is unexpected.")
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
            raise ValueError(f"{source} contains NaN or infinite values in {key!r}.")


def _is_counter(key):
    """Tell whether a key is a norm's counter; older files lack them, and they have no effect."""
    return key.endswith("num_batches_tracked")


def _load_strictly(backbone, state, source):
    """Load `state`, with any number of classes, into a backbone on the meta device."""
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
