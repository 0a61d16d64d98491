"""Read files of weights without executing code in them."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load


def hash_file(path):
    """Return the SHA-256 of a file, as hexadecimal digits."""
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
            return load(path.read_bytes())  # memory-mapped, a file that shrinks would crash
        content = io.BytesIO(path.read_bytes())
        if zipfile.is_zipfile(content) and (bad := zipfile.ZipFile(content).testzip()):
            raise ValueError(f"the checksum of {bad} is wrong")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
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
