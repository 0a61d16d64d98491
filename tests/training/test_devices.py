"""Devices: their names, batches and arithmetic."""

import pytest
import torch
from torch import nn

from sklearn_rrr._surroundings import seeded
from sklearn_rrr._validation import resolve_device
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.training.devices import prediction_batch, training_layout, use_bf16


def test_devices():  # fault 46
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"`device`='cuda:99', but this machine has \d+ CUDA"):
        resolve_device("cuda:99")
    for unknown in ("gpu", "meta", 3.5):
        with pytest.raises(ValueError, match='`device` must be None, "cpu"'):
            resolve_device(unknown)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device(None).type == expected


def test_batches_for_prediction(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    bytes_of = RRRNet(make_backbone("resnet50"), 2, blocks=(1, 1, 1, 1)).first_output_bytes
    assert bytes_of(128) == 64 * 64 * 64 * 4
    assert [prediction_batch(cpu, bytes_of(size)) for size in (32, 96, 128, 512)] == [64, 28, 16, 8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert prediction_batch(cpu, bytes_of(32)) == 8
    assert prediction_batch(cpu, bytes_of(32), is_batch_invariant=True) == 64
    assert prediction_batch(torch.device("cuda"), bytes_of(512)) == 64


def test_precision():
    cpu = torch.device("cpu")
    assert use_bf16("bf16", cpu)
    assert not use_bf16("fp32", cpu)
    assert isinstance(use_bf16(None, cpu), bool)
    assert not use_bf16(None, cpu, has_depthwise=True)
    assert use_bf16("bf16", cpu, has_depthwise=True)


def test_seeded_restores():
    before = torch.get_rng_state()
    cpu = torch.device("cpu")
    with seeded(5, cpu):
        first = torch.rand(1)
    with seeded(5, cpu):
        assert torch.rand(1) == first
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "device", "layout"),
    [
        ((4, 8, 1, 2), "cpu", torch.contiguous_format),
        ((4, 8, 1, 2), "cuda", torch.channels_last),
        ((4, 8, 1, 1), "cpu", torch.channels_last),
        ((8, 8, 1, 2), "cpu", torch.channels_last),
        ((3, 8, 7, 2), "cpu", torch.channels_last),
    ],
)
def test_layout_of_a_training(arguments, device, layout):
    """oneDNN's gradient of a narrow, strided 1×1 convolution would write beyond its memory."""
    network = nn.Sequential(nn.Conv2d(*arguments), nn.ReLU())
    assert training_layout(network, torch.device(device)) == layout
