"""Costs: multiply-adds counted by hand, latency that leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import nn

from sklearn_rrr import cost_report, count_macs, count_parameters, measure_latency
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks import costs
from sklearn_rrr.networks.rrr_net import RRRNet


@pytest.fixture
def net():
    return RRRNet(make_backbone("tiny"), 3, n_branches=2).freeze("branches")


@pytest.fixture(scope="module")
def conv():
    return nn.Conv2d(3, 8, 3)


def measure(model, **options):
    return measure_latency(model, **{"image_size": 16, "repeats": 3, "warmup": 1} | options)


# --------------------------------------------------------------------- parameters, multiply-adds


@pytest.mark.parametrize(
    ("module", "macs", "n_parameters"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 100 * 8 * 27, 224),
        (nn.Conv2d(3, 8, 3, bias=False), 64 * 8 * 27, 216),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 25 * 8 * 27, 224),
        (nn.Conv2d(3, 6, 5, padding=2, groups=3), 100 * 6 * 25, 156),
        (nn.Sequential(nn.Flatten(), nn.Linear(300, 7)), 2100, 2107),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), 0, 6),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)), 100 * (12 + 20), 41),
    ],
)
def test_layers_by_hand(module, macs, n_parameters):
    assert count_macs(module, image_size=10) == macs
    assert count_parameters(module) == n_parameters


@pytest.mark.parametrize("form", ["grouped", "looped"])
def test_network_by_hand(net, form):
    assert net.branch_planes == (5, 11)  # 8 / sqrt(2) and 16 / sqrt(2)
    stump = 64 * 4 * 147 + 16 * (4 * 4 + 4 * 36 + 16 * 4 + 16 * 4)  # stem, first block
    stump += 16 * (16 * 4 + 4 * 36 + 16 * 4)  # second block of conv2_x
    stump += 16 * 16 * 8 + 4 * (8 * 72 + 8 * 32 + 16 * 32)  # conv3_x: its stride is in conv2
    conv4 = 4 * 32 * 5 + 225 + 5 * 20 + 32 * 20 + 20 * 5 + 225 + 5 * 20
    conv5 = 20 * 11 + 9 * 121 + 11 * 44 + 20 * 44
    heads = 44 * 3
    assert count_macs(net.set_branch_form(form)) == stump + 2 * (conv4 + conv5 + heads)


def test_estimators(small, digits):
    X, y = digits
    estimator = small(max_epochs=1)
    for function in (count_parameters, count_macs, measure_latency):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            function(estimator)
    module = estimator.fit(X[:32], y[:32]).module_
    assert count_parameters(estimator) == count_parameters(module) > 0
    assert count_macs(estimator) == count_macs(module, 16) > 0
    assert measure_latency(estimator, repeats=2).repeats == 2


@pytest.mark.parametrize("function", [count_macs, measure_latency])
def test_image_size_is_needed(function, conv):
    with pytest.raises(ValueError, match="`image_size` is needed for a module"):
        function(conv)


# ------------------------------------------------------------------------------------ latency


def test_latency_reports_what_was_measured(net):
    latency = measure_latency(net, batch_size=4, repeats=7, warmup=2)
    assert (latency.repeats, latency.batch_size, latency.device) == (7, 4, "cpu")
    assert latency.n_threads == torch.get_num_threads()
    assert 0 < latency.low <= latency.median <= latency.high


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_are_honoured_and_restored(conv, n_threads):
    before = torch.get_num_threads()
    assert measure(conv, n_threads=n_threads).n_threads == n_threads
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="quantum"):
        measure(conv, n_threads=before + 1, device="quantum")
    assert torch.get_num_threads() == before


class Broken(nn.Sequential):
    def forward(self, x):
        raise ArithmeticError("broken")


@pytest.mark.parametrize("function", [count_macs, measure])
@pytest.mark.parametrize("broken", [False, True])
def test_module_is_left_as_it_was(net, function, broken):
    module = Broken(net, nn.Dropout()) if broken else nn.Sequential(net.train(), nn.Dropout())
    modes = [m.training for m in module.modules()]
    state = copy.deepcopy(module.state_dict())
    assert {True, False} == set(modes)  # the stump is frozen
    if broken:
        with pytest.raises(ArithmeticError):
            function(module, image_size=16)
    else:
        function(nn.Sequential(net, nn.Flatten()), image_size=16)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert {p.device.type for p in module.parameters()} == {"cpu"}


def test_module_runs_in_eval_mode_without_gradients_and_comes_back():
    seen, moves = [], []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled(), x.device.type, tuple(x.shape)))
            return x

        def to(self, device):
            moves.append(device.type)

    latency = measure(Spy(), batch_size=5, repeats=2, warmup=3, device="meta")
    assert seen == [(False, False, "meta", (5, 3, 16, 16))] * 5
    assert (latency.device, moves) == ("meta", ["meta", "cpu"])


@pytest.mark.parametrize(
    ("repeats", "low", "median", "high"), [(30, 10, 15.5, 21), (3, 1, 2, 3), (1, 1, 1, 1)]
)
def test_interval_of_the_median_by_hand(conv, monkeypatch, repeats, low, median, high):
    """Order statistics 10 and 21 of 30; the passes before do not count."""
    times = iter([1e6] * 5 + list(np.random.RandomState(0).permutation(repeats) + 1.0))
    monkeypatch.setattr(costs, "_time", lambda module, images: next(times))
    latency = measure(conv, repeats=repeats, warmup=5)
    assert (latency.low, latency.median, latency.high) == (low, median, high)


@pytest.mark.parametrize("name", ["batch_size", "repeats"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.5, TypeError)])
def test_numbers_are_checked(conv, name, value, error):
    with pytest.raises(error, match=f"`{name}` must be an int of at least 1; got {value}"):
        measure(conv, **{name: value})


# ------------------------------------------------------------------------------------- report


def test_report_columns(conv, net):
    report = cost_report({"conv": conv, "net": net}, (1, 4), image_size=16, repeats=3)
    assert list(report.index) == ["conv", "net"]
    assert list(report.columns) == [
        "n_parameters",
        "macs",
        "megabytes",
        *(f"latency_{size}_{part}" for size in (1, 4) for part in ("ms", "low", "high")),
    ]
    assert report.loc["conv", "macs"] == 14 * 14 * 8 * 27
    assert report.loc["net", "n_parameters"] == count_parameters(net)
    assert report.loc["conv", "megabytes"] == pytest.approx(224 * 4 / 1e6)
    buffers = sum(b.numel() * b.element_size() for b in net.buffers())
    expected = (count_parameters(net) * 4 + buffers) / 1e6
    assert report.loc["net", "megabytes"] == pytest.approx(expected)
    for size in (1, 4):
        values = report[[f"latency_{size}_{part}" for part in ("low", "ms", "high")]].to_numpy()
        assert (np.diff(values, axis=1) >= 0).all()


def test_report_names_the_rows_of_a_list(conv):
    report = cost_report([conv, conv], batch_sizes=(2,), image_size=8, repeats=1)
    assert list(report.index) == ["0: Conv2d", "1: Conv2d"]
    assert report.columns[3] == "latency_2_ms"
    assert report["n_parameters"].tolist() == [224, 224]


def test_other_estimators_are_refused():
    fitted = LogisticRegression().fit([[0], [1]], [0, 1])
    with pytest.raises(
        TypeError, match=r"`model` must be a module, .*; got a LogisticRegression\."
    ):
        count_parameters(fitted)


def test_report_of_one_model():
    report = cost_report(nn.Conv2d(3, 8, 3), batch_sizes=(1,), image_size=8, repeats=2)
    assert report.n_parameters.tolist() == [224]
