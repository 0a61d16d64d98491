"""Weights: strict, safe, and never used when damaged."""

import hashlib
import os
import pickle
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from sklearn_rrr import load_backbone
from sklearn_rrr.backbones import weights
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import TORCHVISION


@pytest.fixture
def state():
    """A state dict for "tiny" with statistics that are not the initial ones."""
    torch.manual_seed(0)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value + 3
        for key, value in make_backbone("tiny").state_dict().items()
    }


def save(state, path, **options):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path, **options)
    return path


def check_loaded(loaded, state):
    backbone, pretrained = loaded
    assert pretrained
    for key, value in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key].float()), key
            assert (value.dtype, value.device.type) == (torch.float32, "cpu")
    assert not any(m.training for m in backbone.modules())
    assert all(p.requires_grad for p in backbone.parameters())


# ------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files(state, tmp_path, suffix, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    path = save(state, tmp_path / f"w{suffix}")
    check_loaded(load_backbone("tiny", weights=path), state)
    check_loaded(load_backbone("tiny", weights=str(path)), state)


def test_state_dict_is_not_aliased(state):
    buffer = torch.rand(2, 4)
    state["bn1.weight"], state["bn1.bias"] = buffer[0], buffer[0]  # shared memory inside, too
    before = {key: value.clone() for key, value in state.items()}
    backbone, pretrained = load_backbone("tiny", weights=state)
    check_loaded((backbone, pretrained), state)
    with torch.no_grad():
        for tensor in (*backbone.parameters(), *backbone.buffers()):
            tensor += 1
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert torch.equal(backbone.bn1.weight, before["bn1.weight"] + 1)


def test_counters_of_norms_may_be_missing_and_classes_may_differ(state):
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    state |= {"fc.weight": torch.rand(11, 64), "fc.bias": torch.rand(11)}
    loaded = load_backbone("tiny", weights=state)
    check_loaded(loaded, state)
    assert loaded[0](torch.rand(2, 3, 16, 16)).shape == (2, 11)


@pytest.mark.parametrize("wanted", [None, "pretrained"])
def test_random_weights_come_from_torchs_generator(wanted):
    kernels = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        backbone, pretrained = load_backbone("tiny", weights=wanted)
        assert (pretrained, backbone.training) == (False, False)
        kernels.append(backbone.conv1.weight)
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])


# ------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (3, TypeError, "`weights` must be .*; got int"),
        ("IMAGENET1K_V9", ValueError, "'pretrained', 'IMAGENET1K_V1', a path .* 'IMAGENET1K_V9'"),
        ("w.bin", ValueError, r"a path to a .pth or .safetensors file, .* 'w.bin'"),
        ("no/w.pth", ValueError, "'no/w.pth', which is not a file"),
        ("no/w.safetensors", ValueError, "'no/w.safetensors', which is not a file"),
    ],
)
def test_wrong_weights(wanted, error, message):
    with pytest.raises(error, match=message):
        load_backbone("resnet18", weights=wanted)


CHANGES = {
    "'layer2.0.bn1.bias' is missing": {"layer2.0.bn1.bias": None},
    "'extra' is unexpected": {"extra": torch.zeros(1)},
    "'fc.weight' has 3 rows, 'fc.bias' 7": {"fc.weight": torch.rand(3, 64)},
    "NaN or infinite values in 'bn1.weight'": {"bn1.weight": torch.full((4,), torch.nan)},
    "NaN or infinite values in 'fc.bias'": {"fc.bias": torch.full((7,), torch.inf)},
    r"'bn1.bias' has the shape \(5,\), not \(4,\)": {"bn1.bias": torch.zeros(5)},
    r"'fc.bias' has the shape \(\), not \(7,\)": {"fc.bias": torch.tensor(1.0)},
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "dict"])
@pytest.mark.parametrize("message", CHANGES)
def test_contents_are_strict(state, tmp_path, message, suffix):
    state = {k: v for k, v in (state | CHANGES[message]).items() if v is not None}
    wanted = state if suffix == "dict" else save(state, tmp_path / f"w{suffix}")
    with pytest.raises(ValueError, match=message) as error:
        load_backbone("tiny", weights=wanted)
    assert str("the given state dict" if suffix == "dict" else wanted) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must contain a state dict; it contains a list"),
        ({"state_dict": {}}, "is not a state dict: 'state_dict' is a dict"),
        ({}, "'conv1.weight' is missing"),
    ],
)
def test_files_that_hold_something_else(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load_backbone("tiny", weights=save(content, tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("resnet18", "resnet34", r"'layer1\.2\.conv1\.weight' is unexpected"),
        ("resnet34", "resnet18", r"'layer1\.2\.conv1\.weight' is missing"),
        ("resnet50", "wide_resnet50_2", r"'layer1\.0\.conv1\.weight' has the shape \(128, 64, 1"),
        ("resnet50", "resnext50_32x4d", r"'layer1\.0\.conv1\.weight' has the shape \(128, 64, 1"),
    ],
)
def test_another_architecture_names_the_first_mismatch(name, other, message):  # fault 58
    with pytest.raises(ValueError, match=f"state dict does not fit '{name}': {message}"):
        load_backbone(name, weights=make_backbone(other).state_dict())


DAMAGES = [
    *(lambda raw, end=end: raw[:end] for end in (0, 1, 8, 100, 5000, -300, -1)),
    *(lambda raw, c=c: c for c in (b"<!DOCTYPE html>", b"\xff" * 64, b"\2" + b"\0" * 7 + b"{]")),
]


@pytest.mark.parametrize("form", ["zip.pth", "legacy.pth", "w.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(state, tmp_path, damage, form):
    options = {"_use_new_zipfile_serialization": False} if form == "legacy.pth" else {}
    path = save(state, tmp_path / form, **options)
    path.write_bytes(damage(path.read_bytes()))
    unsafe = "is not a valid safetensors" if path.suffix == ".safetensors" else "was refused"
    with pytest.raises(ValueError, match=rf"{path} (could not be read|{unsafe})"):
        load_backbone("tiny", weights=path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo done > '{self.marker}'",)


@pytest.mark.parametrize("form", ["zip.pth", "legacy.pth", "raw.pt", "raw.safetensors"])
def test_malicious_pickle_is_not_executed(state, tmp_path, monkeypatch, form):  # fault 56
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must not weaken us
    marker, path = tmp_path / "marker", tmp_path / form
    content = state | {"conv1.weight": Malicious(marker)}
    if form.startswith("raw"):
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip.pth")
    with pytest.raises(
        ValueError, match=r"refused: .*Nothing was executed|not a valid safetensors"
    ):
        load_backbone("tiny", weights=path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(content))  # the attack is real
    assert marker.exists()


# --------------------------------------------------------------------------------- bundled


@pytest.fixture(params=weights.BUNDLED)
def bundled(request, tmp_path, monkeypatch):
    """The name of a backbone, and a copy of its bundled file that stands in for the file."""
    file, _ = weights.BUNDLED[request.param]
    copy = Path(shutil.copy(weights.PRETRAINED / file, tmp_path))
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path)
    return request.param, copy


def test_bundled_weights_are_the_file_in_float32(bundled):
    name, file = bundled
    state = load_file(file)
    backbone, pretrained = load_backbone(name)
    check_loaded((backbone, pretrained), state)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not [key for key in state if key.endswith("num_batches_tracked")]
    logits = backbone(torch.rand(2, 3, backbone.image_size, backbone.image_size))
    assert logits.shape == (2, len(state["fc.bias"]))
    assert logits.isfinite().all()


def flip_last_bit(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])


@pytest.mark.parametrize("damage", [flip_last_bit, lambda raw: raw[:-100], lambda raw: b""])
def test_damaged_bundled_weights_are_not_used(bundled, damage):
    name, file = bundled
    load_backbone(name)
    file.write_bytes(damage(file.read_bytes()))  # at every load, not only at the first
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    message = rf"{file} have the SHA-256 {digest}, .*not used. Reinstall sklearn_rrr; weights=None"
    with pytest.raises(ValueError, match=message):
        load_backbone(name)
    assert load_backbone(name, weights=None)[1] is False


def test_missing_bundled_weights_say_the_cure(bundled):
    name, file = bundled
    file.unlink()
    message = rf"{file} are missing or not readable \(No such .*\). Reinstall sklearn_rrr; weights="
    with pytest.raises(ValueError, match=message):
        load_backbone(name)


def test_bundled_hash_is_compared_in_full(bundled, monkeypatch):
    name, file = bundled
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    forged = digest[:-1] + ("1" if digest[-1] == "0" else "0")
    monkeypatch.setitem(weights.BUNDLED, name, (file.name, forged))
    with pytest.raises(ValueError, match=f"{digest}, not {forged}"):
        load_backbone(name)


# ------------------------------------------------------------------------------- downloads


@pytest.fixture
def published(state, tmp_path, monkeypatch):
    """A checkpoint behind a file:// URL, named as torchvision names them; the cache's path."""
    source = save(state, tmp_path / "upload.pth")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    source = source.rename(tmp_path / f"tiny-{digest[:8]}.pth")
    entries = {"IMAGENET1K_V1": source.as_uri(), "OTHER": source.as_uri()}
    monkeypatch.setattr(weights, "_torchvision_weights", lambda name: entries)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return source, tmp_path / "hub" / "checkpoints" / source.name


def pin_of(cache):
    return cache.with_name(f"{cache.name}.sha256")


@pytest.mark.parametrize("entry", ["pretrained", "OTHER"])
def test_download_once_then_cache(state, published, entry):
    source, cache = published
    for _ in range(2):
        check_loaded(load_backbone("tiny", weights=entry), state)
        source.unlink(missing_ok=True)  # the second time there is only the cache
    assert pin_of(cache).read_text() == hashlib.sha256(cache.read_bytes()).hexdigest() + "\n"
    assert sorted(cache.parent.iterdir()) == [cache, pin_of(cache)]


def test_offline_and_uncached_says_both_ways_out(published):  # fault 54
    source, cache = published
    source.unlink()
    with pytest.raises(ValueError, match="not cached and could not be downloaded") as error:
        load_backbone("tiny")
    for part in (source.as_uri(), str(cache), "pass its path as `weights`", "weights=None"):
        assert part in str(error.value)
    assert list(cache.parent.iterdir()) == []


def test_wrong_download_is_not_kept(published):  # fault 55
    source, cache = published
    source.write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(ValueError, match=r"is damaged .*Nothing was saved"):
        load_backbone("tiny")
    assert list(cache.parent.iterdir()) == []


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: b"<html>", lambda raw: b""])
def test_damaged_cache_is_not_used(published, damage, pinned):  # fault 55
    _, cache = published
    load_backbone("tiny")
    cache.write_bytes(damage(cache.read_bytes()))
    if not pinned:
        pin_of(cache).unlink()
    with pytest.raises(ValueError, match=r"truncated or not the published one.*was not used"):
        load_backbone("tiny")


def test_cache_must_match_the_pinned_hash_in_full_and_the_name(published):
    _, cache = published
    load_backbone("tiny")
    right, other = pin_of(cache).read_text(), hashlib.sha256(b"other").hexdigest()
    pin_of(cache).write_text(right[:8] + "0" * 56)  # as if eight digits had been forged
    with pytest.raises(ValueError, match=f"should begin with {right[:8]}000"):
        load_backbone("tiny")
    cache.write_bytes(b"other")
    pin_of(cache).write_text(other)
    with pytest.raises(ValueError, match=f"{other}, which should begin with {right[:8]}:"):
        load_backbone("tiny")


@pytest.mark.parametrize("pin", ["", "no digits", "0" * 63, "0" * 65, "g" * 64])
def test_a_malformed_pin_does_not_switch_the_check_off(published, pin):  # fault 80
    _, cache = published
    load_backbone("tiny")
    pin_of(cache).write_text(pin)
    with pytest.raises(ValueError, match=r"does not contain a SHA-256.*Delete it if you trust"):
        load_backbone("tiny")


def test_a_download_that_stalls_ends(published, monkeypatch):  # fault 80
    """A server that accepts the connection and says nothing."""
    source, _ = published
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{source.name}"
        monkeypatch.setattr(weights, "_torchvision_weights", lambda name: {"IMAGENET1K_V1": url})
        monkeypatch.setattr(weights, "PATIENCE", 0.3)
        with pytest.raises(ValueError, match=r"could not be downloaded from .*timed out"):
            load_backbone("tiny")
    assert socket.getdefaulttimeout() is None


def test_cache_that_cannot_be_pinned_still_works(state, published, monkeypatch):
    source, cache = published
    cache.parent.mkdir(parents=True)
    source.rename(cache)
    monkeypatch.setattr(os, "replace", refuse)  # as in a read-only folder
    check_loaded(load_backbone("tiny"), state)
    assert list(cache.parent.iterdir()) == [cache]


def refuse(*arguments):
    raise PermissionError("a read-only folder")


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_names_carry_a_hash(name):
    urls = weights._torchvision_weights(name)
    assert urls["IMAGENET1K_V1"] == torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    assert all(re.search(r"-[0-9a-f]{8}\.pth$", url) for url in urls.values())
