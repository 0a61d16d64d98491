"""Convolutions as matrix products: the same numbers, and only where they are faster."""

import pytest
import torch
import torch.nn.functional as F

from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.matrix_products import PRODUCTS, MatrixConv2d, choose
from sklearn_rrr.networks.rrr_net import RRRNet


@pytest.mark.parametrize("products", [PRODUCTS, (), *[(name,) for name in PRODUCTS]])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [
        (1, 1, 0, 4),
        (1, 2, 0, 3),
        (3, 1, 1, 2),
        (3, 2, 1, 4),
        (7, 2, 3, 1),
        (3, 3, 1, 2),
        (3, 1, 0, 1),
    ],
)
@pytest.mark.parametrize("size", [(7, 8), (8, 7), (9, 9)])
def test_products_equal_torch(kernel, stride, padding, groups, size, products):
    torch.manual_seed(0)
    x = torch.randn(3, groups * 5, *size, dtype=torch.double, requires_grad=True)
    weight = torch.randn(groups * 6, 5, kernel, kernel, dtype=torch.double, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, padding, 1, groups)
    result = MatrixConv2d.apply(x, weight, stride, padding, groups, products)
    torch.testing.assert_close(result, expected)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, weight), upstream)
    torch.testing.assert_close(torch.autograd.grad(result, (x, weight), upstream), wanted)


def test_a_frozen_input_gets_no_gradient():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 2, 3, 3, requires_grad=True)
    MatrixConv2d.apply(x, weight, 2, 1, 2, PRODUCTS).sum().backward()
    assert x.grad is None
    assert weight.grad.abs().sum() > 0


def test_the_rule_knows_the_shapes_that_were_measured():
    assert choose(2048, 512, 1, 1, groups=1) == ()  # into the branches
    assert choose(2048, 512, 1, 2, groups=1) == ("forward",)  # their shared shortcut
    assert choose(512, 316, 1, 2, groups=8) == PRODUCTS
    assert choose(2048, 316, 1, 1, groups=8) == ("weight",)
    assert choose(2048, 79, 3, 2, groups=8) == ()
    assert choose(512, 170, 3, 2, groups=8) == ("input", "weight")


@pytest.mark.parametrize("backbone", ["tiny", "tiny_basic", "tiny_mobile", "synth50"])
def test_networks_train_alike_in_every_form(backbone):
    torch.manual_seed(0)
    net = RRRNet(make_backbone(backbone), 3, n_branches=2)
    images = torch.rand(8, 3, 64, 64)

    def gradient(form, bf16=True):
        net.set_branch_form(form).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            net(images).float().square().sum().backward()
        return torch.cat([p.grad.flatten() for p in net.branches.parameters()])

    exact = gradient("grouped", bf16=False)
    rounding = (gradient("grouped") - exact).norm()
    for form in ("auto", "matrix"):
        assert 0 < (gradient(form) - exact).norm() < 1.5 * rounding


def test_full_precision_and_prediction_stay_grouped(monkeypatch):
    net = RRRNet(make_backbone("tiny"), 3, n_branches=2).set_branch_form("matrix")
    monkeypatch.setattr(MatrixConv2d, "apply", None)
    images = torch.rand(2, 3, 16, 16)
    net(images).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net(images)
