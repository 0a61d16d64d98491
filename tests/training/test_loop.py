"""The loop: batches, loss, averaging, norms, schedules, seeds, and what may go wrong."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from sklearn_rrr.training.branch_net import BranchNet
from sklearn_rrr.training.loop import make_net
from sklearn_rrr.training.loss import BranchLoss
from sklearn_rrr.training.settings import SCHEDULES


def test_loss_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])  # (B, M, K)
    log2, one = np.log(2), np.log(1 + np.exp(-1))
    two = np.log(1 + np.exp(-2))
    loss = BranchLoss()(logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(((log2 + one) + 3 * (two + log2)) / 2, abs=1e-6)
    labels = torch.tensor([[0, 1], [1, 0]])  # (B, M): branch 1 sees other images
    loss = BranchLoss()(logits, labels, torch.ones(2, 2))
    assert loss.item() == pytest.approx((log2 + one + 1 + two + log2) / 2, abs=1e-6)


def test_averaging_is_the_published_moving_average(small, digits, monkeypatch):
    """decay = (E - 1) / E at every step of the last E epochs, weights and norms alike."""
    steps = []
    original = BranchNet.train_step

    def record(self, batch, **kwargs):
        step = original(self, batch, **kwargs)
        state = {
            k: v.clone() for k, v in self.module_.state_dict().items() if v.is_floating_point()
        }
        steps.append((len(self.history), state))
        return step

    monkeypatch.setattr(BranchNet, "train_step", record)
    clf = small(max_epochs=5, ema_epochs=2).fit(*digits)
    averaged = [state for epoch, state in steps if epoch > 3]
    assert len(averaged) == 2 * 8
    final = clf.module_.state_dict()
    for name in ("head.weight", "branches.0.0.bn1.running_mean", "stump.4.0.conv1.weight"):
        expected = averaged[0][name]
        for state in averaged[1:]:
            expected = expected * 0.5 + state[name] * 0.5
        torch.testing.assert_close(final[name], expected, atol=1e-6, rtol=1e-5)


def test_averaging_switched_off_keeps_the_last_weights(small, digits):
    plain = small(ema_epochs=0).fit(*digits)
    one = small(ema_epochs=1).fit(*digits)  # decay 0: the latest weights, too
    np.testing.assert_allclose(plain.predict_proba(digits[0]), one.predict_proba(digits[0]))


def test_frozen_stump_adapts_its_norms_only(small, digits):
    cold = small(trainable="branches", norm_warmup_epochs=0).fit(*digits).module_.stump
    warm = small(trainable="branches", norm_warmup_epochs=3).fit(*digits).module_.stump
    for name, value in cold.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            assert not torch.equal(value, warm.state_dict()[name])
        elif value.is_floating_point():
            assert torch.equal(value, warm.state_dict()[name])
    assert torch.equal(cold[1].running_mean, torch.zeros(4))  # untouched by the training


def test_adapted_norms_are_the_statistics_of_all_images(small, digits):
    X, y = digits[0].astype(np.float32) / 300, digits[1]  # no multiples of 1/255
    clf = small(trainable="branches", batch_size=40, augmentation="none", max_epochs=1).fit(X, y)
    norm, x = clf.module_.stump[1], torch.from_numpy(X)[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        x = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True)
        maps = clf.module_.stump[0](clf.module_.normalize(x))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert norm.momentum == 0.1  # for further training


def test_only_what_is_trainable_moves(small, digits):
    heads = [small(trainable="head", max_epochs=n).fit(*digits).module_ for n in (1, 3)]
    for name, value in heads[0].state_dict().items():
        same = torch.equal(value, heads[1].state_dict()[name])
        assert same != name.startswith("head."), name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", (1, 1, 1)),
        ("linear", (1, 0.5, 0)),
        ("cosine", (1, 0.5, 0)),
        ("onecycle", (0.04, 0.8117449, 0)),
        ("steps", (1, 0.1, 0.01)),
    ],
)
def test_schedules(name, values):
    assert [SCHEDULES[name](t) for t in (0, 0.5, 1)] == pytest.approx(values)


def test_schedule_is_followed(small, digits):
    history = small(lr_schedule="linear", learning_rate=0.01, max_epochs=4).fit(*digits).history_
    # The rate of the first step of each epoch of 8 batches.
    expected = [0.01 * (1 - step / 32) for step in (0, 8, 16, 24)]
    assert history.learning_rate.tolist() == pytest.approx(expected)


def test_independent_sampling_trains_each_branch_on_its_own_batch(small, digits, monkeypatch):
    shapes = []
    original = BranchNet._loss

    def record(self, logits, targets):
        shapes.append(tuple(targets[0].shape))
        return original(self, logits, targets)

    monkeypatch.setattr(BranchNet, "_loss", record)
    clf = small(sampling="independent", max_epochs=1).fit(*digits)
    assert shapes == [(15, 2)] * 8
    assert clf.predict_proba(digits[0][:3]).shape == (3, 4)


def test_same_batches_make_both_samplings_equal(small, digits):
    """Features of M equal parts give the logits of one shared pass."""
    clf = small(sampling="independent", max_epochs=1, trainable="branches").fit(*digits)
    images = torch.rand(5, 3, 16, 16)
    net = clf.net_
    net.module_.train()
    twice = net.infer(torch.cat([images, images]))
    once = net.module_(images)
    torch.testing.assert_close(twice, once, atol=1e-5, rtol=1e-5)


def test_early_stopping_returns_to_the_best_epoch(small, digits, monkeypatch):
    held_out = []
    original = BranchNet.run

    def record(self, images, validation=None, **options):
        held_out.append(validation)
        return original(self, images, validation, **options)

    monkeypatch.setattr(BranchNet, "run", record)
    clf = small(validation_fraction=0.25, early_stopping=True, patience=2, max_epochs=60)
    losses = clf.set_params(fine_tuning__learning_rate=0.03).fit(*digits).history_.valid_loss
    assert len(losses) < 60
    assert losses.idxmin() == len(losses) - 1 - 2
    images, (labels, weights) = held_out[0].__getitems__(list(range(30)))
    with torch.no_grad():
        loss = BranchLoss()(clf.module_(images), labels, weights) / 2
    assert loss.item() == pytest.approx(losses.min(), rel=1e-4)


def test_validation_figures_are_those_of_the_averaged_weights(small, digits):
    X, y = digits
    figures = ["train_loss", "valid_loss", "valid_acc"]
    clf = small(validation_fraction=0.5, max_epochs=6, ema_epochs=3).fit(X, y)
    assert list(clf.history_) == ["epoch", "dur", "learning_rate", *figures]
    images = clf.history_.valid_acc.iloc[-1] * 60
    assert images == pytest.approx(round(images), abs=1e-4)


def test_keyboard_interrupt_reaches_the_user(small, digits):  # fault 40
    calls = []

    def interrupt(image):
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(augmentation=interrupt).fit(*digits)
    assert len(calls) == 1
    search = GridSearchCV(small(augmentation=interrupt), {"n_branches": [1, 2]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*digits)
    assert len(calls) == 2


def test_failed_partial_fit_leaves_nothing_fitted(small, digits):  # fault 75
    X, y = digits
    clf = small(dropout=0.5).fit(X, y)
    clf.set_params(fine_tuning__augmentation=lambda image: image * float("nan"))
    with pytest.raises(ValueError, match="loss became nan"):
        clf.partial_fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict(X)


class Ended(BaseException):
    """An end that is no Exception, as of a job whose time is over."""


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, TypeError, ZeroDivisionError, OSError, Ended])
def test_partial_fit_that_ends_in_any_error_leaves_nothing_fitted(small, digits, error, first):
    X, y = digits
    seen = []

    def fail(image):
        seen.append(1)
        if len(seen) > 20:  # in the second batch
            raise error
        return image

    clf = small(norm_warmup_epochs=0, max_epochs=1)
    clf = clf if first else clf.fit(X, y)
    clf.set_params(fine_tuning__augmentation=fail)
    with pytest.raises(error):
        clf.partial_fit(X, y, classes=range(4))
    with pytest.raises(NotFittedError):
        clf.predict(X)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_training_that_explodes_in_its_last_step_raises(small, digits, method):  # fault 75
    clf = small(max_epochs=1, learning_rate=1e-3).fit(*digits)
    clf.set_params(fine_tuning__learning_rate=1e10, batch_size=120)
    with pytest.raises(ValueError, match=r"NaN or infinite. Use a smaller `learning_rate`|became"):
        getattr(clf, method)(*digits)
    with pytest.raises(NotFittedError):
        clf.predict(digits[0])


def test_interrupted_fit_keeps_what_it_learned(small, digits):  # fault 40
    X, y = digits
    seen = []

    def interrupt(image):
        seen.append(1)
        if len(seen) > 2.5 * len(X):
            raise KeyboardInterrupt
        return image

    clf = small(max_epochs=9, augmentation=interrupt, norm_warmup_epochs=0)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.interrupted_
    assert len(clf.history_) == 2
    assert clf.score(X, y) > 0.4
    assert not small().fit(X, y).interrupted_


def test_interrupted_partial_fit_predicts_with_what_it_learned(small, digits, monkeypatch):
    X, y = digits
    clf = small(learning_rate=0.1).fit(X, y)
    before, step, steps = clf.predict_proba(X), BranchNet.train_step_single, []

    def interrupt(net, batch, **_):
        if steps:
            raise KeyboardInterrupt
        steps.append(batch)
        return step(net, batch)

    with monkeypatch.context() as patch:
        patch.setattr(BranchNet, "train_step_single", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(X, y)
    after = clf.predict_proba(X)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(after, pickle.loads(pickle.dumps(clf)).predict_proba(X))
    assert clf.interrupted_
    assert clf.history_.epoch.tolist() == [1, 2]
    assert not clf.partial_fit(X, y).interrupted_
    assert clf.history_.epoch.tolist() == [1, 2, 3]
    assert np.isfinite(clf.history_.train_loss).all()


def test_interrupted_first_partial_fit_keeps_what_it_learned(small, digits, monkeypatch):
    step, steps = BranchNet.train_step_single, []

    def interrupt(net, batch, **_):
        if steps:
            raise KeyboardInterrupt
        steps.append(batch)
        return step(net, batch)

    clf = small()
    with monkeypatch.context() as patch:
        patch.setattr(BranchNet, "train_step_single", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(*digits, classes=range(4))
    assert clf.interrupted_
    assert len(clf.history_) == 0
    assert len(clf.partial_fit(*digits).history_) == 1


def test_failed_fit_leaves_nothing_half_fitted(small, digits):  # fault 61
    X, y = digits
    clf = small().fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        clf.fit(X, y + 0.5)
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_frozen_branches_adapt_their_norms(small, digits):
    X, y = digits
    clf = small(trainable="head", max_epochs=1).fit(X, y)
    assert clf.fine_tuning_.norm_warmup_epochs == 1
    norms = [m for m in clf.module_.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(torch.equal(m.running_mean, torch.zeros_like(m.running_mean)) for m in norms)


def test_partial_fit_follows_set_params(small, digits):
    X, y = digits
    clf = small().partial_fit(X, y, classes=range(4))
    net = clf.net_
    assert clf.partial_fit(X, y).net_ is net
    clf.set_params(fine_tuning__learning_rate=1e-30, fine_tuning__weight_decay=0.0)
    before = clf.module_.head.weight.clone()
    clf.partial_fit(X, y)
    torch.testing.assert_close(clf.module_.head.weight, before, atol=1e-9, rtol=0)
    assert clf.history_.learning_rate.tolist() == [1e-3, 1e-3, 1e-30]


def test_loss_that_is_not_finite_stops(small, digits):  # fault 48
    with pytest.raises(ValueError, match=r"loss became nan in epoch 1.*smaller `learning_rate`"):
        small(augmentation=lambda image: image * float("nan")).fit(*digits)


def test_out_of_memory_suggests_the_cure(small, digits, monkeypatch):  # fault 45
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BranchNet, "train_step", full)
    with pytest.raises(ValueError, match=r"out of memory with `batch_size`=16; use a smaller"):
        small().fit(*digits)


@pytest.mark.slow
def test_bf16_learns_like_fp32(small, digits):
    X, y = digits
    scores = [
        small(precision=p, max_epochs=20, learning_rate=0.01).fit(X, y).score(X, y)
        for p in ("fp32", "bf16")
    ]
    assert min(scores) > 0.9


@pytest.mark.parametrize("trainable", ["head", "branches", "all"])
@pytest.mark.parametrize("n_branches", [1, 2])
def test_bf16_with_augmentation_and_every_frozen_part(small, digits, trainable, n_branches):
    clf = small(precision="bf16", augmentation="paper", trainable=trainable, n_branches=n_branches)
    X, y = digits
    assert clf.fit(X, y).history_.train_loss.notna().all()
    state = clf.module_.state_dict().values()
    assert {v.dtype for v in state} <= {torch.float32, torch.int64}


def test_generators_and_threads_are_left_alone(small, digits):
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1]  # noqa: NPY002
    small(augmentation="paper", dropout=0.1).fit(*digits)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_verbose_shows_progress(small, digits, capsys):
    small(verbose=2, max_epochs=2).fit(*digits)
    assert "train_loss" in capsys.readouterr().out
    small(verbose=1, max_epochs=2).fit(*digits)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""
    small().fit(*digits)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.gpu
def test_gpu_fits_and_its_pickle_predicts_on_the_cpu(small, digits):  # fault 59
    X, y = digits
    clf = small(device="cuda", max_epochs=5).fit(X, y)
    probabilities = clf.predict_proba(X)
    loaded = pickle.loads(pickle.dumps(clf)).set_params(device="cpu")
    assert next(loaded.module_.parameters()).device.type == "cpu"
    np.testing.assert_allclose(loaded.predict_proba(X), probabilities, atol=1e-3)


# ---------------------------------------------------------------------------- kept features


@pytest.mark.parametrize("sampling", ["shared", "independent"])
@pytest.mark.parametrize("trainable", ["head", "branches"])
def test_kept_features_change_nothing_but_the_time(small, digits, monkeypatch, trainable, sampling):
    passes = []
    stump = BranchNet.stump
    monkeypatch.setattr(BranchNet, "stump", lambda net, x: passes.append(len(x)) or stump(net, x))
    results = {}
    for cached in (True, False):
        passes.clear()
        clf = small(cache_features=cached, trainable=trainable, sampling=sampling, max_epochs=5)
        clf.set_params(validation_fraction=0.2)
        results[cached] = clf.fit(*digits).predict_proba(digits[0]), sum(passes), clf.history_
    (kept, few, history), (again, many, expected) = results[True], results[False]
    np.testing.assert_allclose(kept, again, atol=1e-5)
    np.testing.assert_allclose(history.valid_loss, expected.valid_loss, atol=1e-5)
    assert few == 120 + 1  # each image once, and one to know the shape
    assert many == 5 * (96 * (2 if sampling == "independent" else 1) + 24)


@pytest.mark.parametrize(
    "parameters", [{"trainable": "all"}, {"trainable": "branches", "augmentation": "geometric"}]
)
def test_what_learns_or_is_augmented_is_not_kept(small, digits, monkeypatch, parameters):
    monkeypatch.setattr("sklearn_rrr.training.branch_net.keep_features", None)
    small(**parameters).fit(*digits)


def test_penalty_is_added_to_the_loss_of_each_step(small, digits):
    """AdamW takes steps of the size of the rate, along the sign of the loss's slope."""
    clf = small(max_epochs=1, learning_rate=1e-4, ema_epochs=0, weight_decay=0).fit(*digits)
    head, shapes = clf.module_.head, []
    before = head.bias.detach().clone()

    def penalty(images):
        shapes.append(images.shape[1:])
        return 1e6 * head.bias.sum()

    images = clf._read_set(*digits, None, None, clf.classes_)
    clf._train_on(images, clf._settings(len(images), 0), penalty=penalty)
    torch.testing.assert_close(before - head.bias, torch.full((2, 4), 8e-4), rtol=1e-3, atol=1e-7)
    assert shapes == [(3, 16, 16)] * 8


def test_sgd_decays_only_what_it_may(small, digits):
    clf = small(max_epochs=1).fit(*digits)
    settings = replace(clf._settings(120, 0), optimizer="sgd", undecayed=("head.*",))
    optimizer = make_net(clf.module_, settings).optimizer_
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    sizes = {g["weight_decay"]: sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    heads = sum(p.numel() for p in clf.module_.head.parameters())
    assert sizes == {0.0: heads, 0.01: clf.n_parameters_ - heads}


def test_rates_of_their_own(small, digits):
    clf = small(max_epochs=1, learning_rate=0.1).fit(*digits)
    factors = (("head.*", 5.0), ("branches.*", 1.0))
    settings = replace(
        clf._settings(120, 0), undecayed=("head.*",), lr_factors=factors, stump_lr_factor=0.5
    )
    groups = make_net(clf.module_, settings).optimizer_.param_groups
    rates = {(group["lr"], group["weight_decay"]) for group in groups}
    assert rates == {(0.5, 0.0), (0.05, 0.01), (0.1, 0.01)}


def test_held_modules_keep_every_bit(small, digits):
    clf = small(max_epochs=1, ema_epochs=1).fit(*digits)
    clf.module_.stump[0].weight.data[0] = -0.0
    held = ["stump.0", "stump.1", "branches.0.0.conv2", "branches.0.0.bn2"]
    clf.module_.hold(held)
    before = copy.deepcopy(clf.module_.state_dict())
    images = clf._read_set(*digits, None, None, clf.classes_)
    clf._train_on(images, clf._settings(len(images), 0))
    for name, value in clf.module_.state_dict().items():
        is_held = name.rpartition(".")[0] in [*held, "normalize"]
        assert torch.equal(value, before[name]) == is_held, name
        assert not is_held or torch.equal(value.signbit(), before[name].signbit()), name


def test_averages_leave_the_counts_of_held_norms(small, digits):
    """0.9 · 7 + 0.1 · 7 is less than 7 in float32."""
    clf = small(max_epochs=12, ema_epochs=10, trainable="all").fit(*digits)
    norm = clf.module_.stump[1]
    norm.num_batches_tracked.fill_(7)
    clf.module_.hold(["stump.0", "stump.1"])
    images = clf._read_set(*digits, None, None, clf.classes_)
    clf._train_on(images, clf._settings(len(images), 0))
    assert norm.num_batches_tracked == 7
