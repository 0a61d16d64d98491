"""Training: the only file that knows skorch.

RRR-Net (arXiv:2310.01157), section 4.2 and appendix C: cross-entropy of each branch, AdamW
at a constant rate, norms of the frozen stump adapted beforehand, weights averaged over the
last epochs. B is the batch, M the number of branches, K the number of classes.
"""

import copy
import math
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, PassthroughScoring
from skorch.helper import predefined_split
from skorch.history import History
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from sklearn_rrr.batches import EpochBatches, keep_features, load_batches
from sklearn_rrr.devices import explained_memory, prediction_batch, seed_generators
from sklearn_rrr.heads import RidgeHeads
from sklearn_rrr.images import as_unit_float
from sklearn_rrr.inference import fold_norms
from sklearn_rrr.memory import keeping_memory
from sklearn_rrr.network import average_probabilities

SAMPLINGS = ("shared", "independent")
PRECISIONS = ("auto", "fp32", "bf16")
OPTIMIZERS = {
    "adamw": {"optimizer": torch.optim.AdamW},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
}
SCHEDULES = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "steps": lambda t: 1.0 if t < 0.4 else 0.1 if t < 0.8 else 0.01,
    # Smith and Topin (2018): up over the first 30 %, then down along a cosine.
    "onecycle": lambda t: (
        0.04 + 0.96 * t / 0.3 if t < 0.3 else (1 + math.cos(math.pi * (t - 0.3) / 0.7)) / 2
    ),
}


@dataclass(frozen=True)
class Settings:
    """What one training needs to know; every "auto" is settled by now."""

    max_epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    stump_lr_factor: float = 1.0
    weight_decay: float = 0.01
    lr_schedule: str = "constant"
    ema_epochs: int = 0
    norm_warmup_epochs: int = 0
    head_init: str = "random"
    augmentation: object = None
    cache_features: bool = True
    sampling: str = "shared"
    patience: int | None = None
    bf16: bool = False
    device: str = "cpu"
    seed: int = 0
    verbose: int = 0
    optimizer: str = "adamw"
    undecayed: tuple = ()  # patterns of names of parameters without weight decay
    lr_factors: tuple = ()  # (pattern, factor on the learning rate) of other parameters


@contextmanager
def averaging_norms(module):
    """Let the norms in training mode forget their statistics and take means over batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


# --------------------------------------------------------------------------------- loss


class BranchLoss(nn.Module):
    """Cross-entropy, summed over branches and averaged over the batch with weights."""

    def forward(self, logits, labels, weights):
        """(B, M, K) logits; labels and weights (B,), or (B, M) where branches differ."""
        labels, weights = (
            t[:, None].expand(logits.shape[:2]) if t.ndim == 1 else t for t in (labels, weights)
        )
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / len(logits)


# ---------------------------------------------------------------------------- skorch net


class BranchNet(NeuralNet):
    """skorch's loop for a network with branches; made by :func:`make_net`."""

    def __init__(self, module, *args, settings, penalty=None, **kwargs):
        self.settings, self.penalty = settings, penalty
        super().__init__(module, *args, **kwargs)

    def get_iterator(self, dataset, training=False):
        if training:
            independent = self.settings.sampling == "independent"
            branches = self.module_.n_branches if independent else None
            sampler = EpochBatches(
                len(dataset), self.settings.batch_size, self.settings.seed, branches
            )
            sampler.epoch = len(self.history)
        else:
            size = prediction_batch(torch.device(self.device))
            n_batches = math.ceil(len(dataset) / size)
            sampler = np.array_split(np.arange(len(dataset)), n_batches)
        return self.load(dataset, sampler)

    def load(self, images, batches):
        """Return a loader; it reads ahead where the processor waits for the device."""
        waits = torch.device(self.device).type != "cpu"
        return load_batches(images, batches, ahead=waits and not images.reads_dataset)

    def initialize(self):
        super().initialize()
        self.module_.to(memory_format=torch.channels_last)
        self.augmentation_generator_ = torch.Generator(self.device)
        self.averages = []  # skorch takes no module outside of initialize; a list it does
        self.stumps, self.kept = [], False
        return self

    def prepare(self, images, training):
        """Bring a batch to the device, and augment it if it is to learn from."""
        images = images.to(self.device, non_blocking=True)
        if self.kept:
            return images
        if training and self.settings.augmentation is not None:
            images = self.settings.augmentation(as_unit_float(images), self.augmentation_generator_)
        return images.contiguous(memory_format=torch.channels_last)

    def autocast(self):
        return torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.settings.bf16
        )

    def infer(self, inputs, **_):
        """Images (B, 3, S, S), or (M·B, 3, S, S) with a part for each branch -> (B, M, K).

        Inputs are the features of frozen parts where those are kept.
        """
        independent = self.module_.training and self.settings.sampling == "independent"
        with self.autocast():
            if self.kept and self.module_.is_frozen("branches"):
                if independent:
                    parts = inputs.unflatten(0, (self.module_.n_branches, -1))  # (M, B, M, F)
                    inputs = parts.diagonal(dim1=0, dim2=2).transpose(1, 2)
                return self.module_.head(inputs)
            features = inputs if self.kept else self.stump(inputs)
            if independent:
                parts = features.unflatten(0, (self.module_.n_branches, -1))  # (M, B, C, h, w)
                features = parts.transpose(0, 1).flatten(1, 2)
                features = features.contiguous(memory_format=torch.channels_last)
            return self.module_.forward_branches(features)

    def stump(self, images):
        """Images -> features, through the folded stump where it is frozen."""
        return self.stumps[0](images) if self.stumps else self.module_.forward_features(images)

    def train_step_single(self, batch, **_):
        images, targets = batch
        self._set_training(True)
        images = self.prepare(images, training=True)
        logits = self.infer(images)
        loss = self._loss(logits, targets)
        if self.penalty is not None:
            with self.autocast():
                loss = loss + self.penalty(images)
        loss.backward()
        return {"loss": loss.detach() / self.module_.n_branches, "y_pred": logits}

    def validation_step(self, batch, **_):
        images, targets = batch
        self._set_training(False)
        with torch.no_grad():
            logits = self.infer(self.prepare(images, training=False))
            loss = self._loss(logits, targets) / self.module_.n_branches
            votes = average_probabilities(logits.float()).argmax(1).cpu()
        self.history.record_batch("valid_acc", (votes == targets[0]).float().mean().item())
        return {"loss": loss, "y_pred": logits}

    def _loss(self, logits, targets):
        labels, weights = (t.to(self.device) for t in targets)
        return self.criterion_(logits.float(), labels, weights)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if training:  # each epoch draws alike, however the training came there
            seed = self.settings.seed + len(self.history)
            seed_generators(seed, torch.device(self.device))
            self.augmentation_generator_.manual_seed(seed)
            self.history.record("learning_rate", self.optimizer_.param_groups[-1]["lr"])
            self._train_epoch(iterator, prefix, step_fn, **fit_params)
            return
        with self.averaged_weights() if self.averages else nullcontext():
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _train_epoch(self, iterator, prefix, step_fn, **fit_params):
        """As skorch's own, but losses are read once an epoch: the device need not wait.

        They lie in one block: small ones, each where it was freed last, would keep the large
        blocks between them from being used again as a whole.
        """
        losses = torch.empty(len(iterator), device=self.device)
        for i, batch in enumerate(iterator):
            self.notify("on_batch_begin", batch=batch, training=True)
            step = step_fn(batch, **fit_params)
            losses[i] = step["loss"]
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=True, **step)
        batches = self.history[-1]["batches"]
        for row, loss in zip(batches, losses.tolist(), strict=True):
            row[f"{prefix}_loss"] = loss
        self.history.record(f"{prefix}_batch_count", len(losses))

    @contextmanager
    def averaged_weights(self):
        """Put the averaged weights in place, and the latest ones back."""
        parts = self.module_.trainable_parts()
        latest = copy.deepcopy(parts.state_dict())
        _put_averages(self.averages[0], parts)
        try:
            yield
        finally:
            parts.load_state_dict(latest)

    def run(self, images, validation=None, epochs=None):
        """Train on, for `epochs` or the settings' number of them.

        skorch's own `fit` would swallow a KeyboardInterrupt.
        """
        try:
            with (
                explained_memory(self.settings.batch_size),
                keeping_memory(),
                self.folded_stump(),
                self.kept_features(images, validation, epochs) as (images, validation),
                suppress(_Stop),
            ):
                self.set_params(train_split=predefined_split(validation) if validation else None)
                self.notify("on_train_begin", X=images, y=None)
                self.fit_loop(images, epochs=epochs)
        finally:
            self.module_.eval()  # whatever stopped it, the network can predict
        self.notify("on_train_end", X=images, y=None)
        return self

    @contextmanager
    def kept_features(self, images, validation, epochs):
        """Put the features of frozen parts in the images' place, where nothing changes them."""
        used = self.settings.cache_features and self.settings.augmentation is None
        once = (epochs or self.settings.max_epochs) == 1
        if not used or once or not self.module_.is_frozen("stump"):
            yield images, validation
            return
        example = self.frozen_features(images.__getitems__([0])[0])
        form = self.settings.batch_size, example.shape[1:], example.dtype
        with keep_features([images, validation], self.frozen_features, *form) as kept:
            self.kept = kept is not None
            try:
                yield kept or (images, validation)
            finally:
                self.kept = False

    def frozen_features(self, images):
        """Images -> what the frozen parts make of them."""
        self._set_training(False)
        with torch.no_grad(), self.autocast():
            features = self.stump(self.prepare(images, training=False))
            pool = self.module_.is_frozen("branches")
            return self.module_.pool_branches(features) if pool else features

    @contextmanager
    def folded_stump(self):
        """Run a frozen stump with folded norms, in the arithmetic of the training."""
        if self.module_.is_frozen("stump"):
            stump = fold_norms(nn.Sequential(self.module_.normalize, self.module_.stump))
            if self.settings.bf16:
                stump[1].bfloat16()
            self.stumps.append(stump.to(memory_format=torch.channels_last))
        try:
            yield
        finally:
            self.stumps.clear()

    def warm_up(self, images):
        """Do what precedes training: adapt the norms of frozen parts, start the heads."""
        if self.settings.norm_warmup_epochs:
            self.warm_up_norms(images)
        if self.settings.head_init == "ridge":
            self.start_heads(images)

    def start_heads(self, images):
        """Start the heads as ridge regressions on the features of one pass.

        In it the norms that learn take the statistics of the images, so that the network
        can predict before its first step.
        """
        sampler = EpochBatches(len(images), self.settings.batch_size, self.settings.seed + 2)
        self.module_.train()
        heads = RidgeHeads(self.module_.n_classes)
        with (
            averaging_norms(self.module_),
            explained_memory(self.settings.batch_size),
            torch.no_grad(),
            self.autocast(),
        ):
            for batch, targets in self.load(images, sampler):
                stump = self.module_.forward_features(self.prepare(batch, training=False))
                heads.update(self.module_.pool_branches(stump), *targets)
        heads.write(self.module_.head)

    def warm_up_norms(self, images):
        """Adapt the norm statistics of the frozen parts to the images (section 3.3)."""
        seed = self.settings.seed
        sampler = EpochBatches(len(images), self.settings.batch_size, seed + 1)
        self.augmentation_generator_.manual_seed(seed + 1)
        frozen = self.module_.eval().frozen_parts()
        frozen.train()
        forward = self.module_ if len(frozen) > 1 else self.module_.forward_features
        with explained_memory(self.settings.batch_size), torch.no_grad():
            for _ in range(self.settings.norm_warmup_epochs):
                for batch, _ in self.load(images, sampler):
                    batch = self.prepare(batch, training=True)
                    with self.autocast():  # the products, not the augmentation
                        forward(batch)
        frozen.eval()


class _Stop(Exception):
    """Ends the training early; a KeyboardInterrupt is the user's alone."""


class _EarlyStopping(EarlyStopping):
    def on_epoch_end(self, net, **kwargs):
        try:
            super().on_epoch_end(net, **kwargs)
        except KeyboardInterrupt:
            raise _Stop from None


class _WeightAveraging(Callback):
    """Exponential moving average over the last E epochs, decay (E - 1) / E at each step.

    Norm statistics are averaged with the weights they belong to.
    """

    def __init__(self, n_epochs, max_epochs):
        self.n_epochs, self.max_epochs = n_epochs, max_epochs

    def on_batch_end(self, net, training=False, **_):
        if not training or len(net.history) <= self.max_epochs - self.n_epochs:
            return
        parts = net.module_.trainable_parts()
        if not net.averages:
            decay = (self.n_epochs - 1) / self.n_epochs
            average = get_ema_multi_avg_fn(decay)
            net.averages.append(AveragedModel(parts, multi_avg_fn=average, use_buffers=True))
        net.averages[0].update_parameters(parts)

    def on_train_end(self, net, **_):
        if net.averages:
            _put_averages(net.averages.pop(), net.module_.trainable_parts())


def _put_averages(averages, parts):
    """Load averages of what learns; counts of batches are none, and lost one by rounding.

    Nor is what does not learn: the average of -0.0 is 0.0, another bit.
    """
    held = {name for name, p in parts.named_parameters() if not p.requires_grad}
    state = averages.module.state_dict().items()
    learned = {k: v for k, v in state if v.is_floating_point() and k not in held}
    parts.load_state_dict(learned, strict=False)


class _AfterStep(Callback):
    """Calls a function with the number of steps so far, after each."""

    def __init__(self, function):
        self.function = function

    def on_train_begin(self, net, **_):
        self.n_steps_ = 0

    def on_batch_end(self, net, training=False, **_):
        if training:
            self.n_steps_ += 1
            self.function(self.n_steps_)


class _FiniteLoss(Callback):
    def on_epoch_end(self, net, **_):
        if not math.isfinite(net.history[-1, "train_loss"]):
            raise ValueError(
                f"The training loss became {net.history[-1, 'train_loss']} in epoch "
                f"{len(net.history)}. Use a smaller `learning_rate` (now "
                f"{net.settings.learning_rate:g}) or precision='fp32'."
            )


class _ProgressBar(Callback):
    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_train_begin(self, net, **_):
        self.bar_ = tqdm(total=self.n_epochs, unit="epoch", desc=type(net.module_).__name__)

    def on_epoch_end(self, net, **_):
        shown = {k: f"{net.history[-1, k]:.3f}" for k in ("train_loss", "valid_acc")
                 if k in net.history[-1]}  # fmt: skip
        self.bar_.set_postfix(shown)
        self.bar_.update()

    def on_train_end(self, net, **_):
        self.bar_.close()


def make_net(module, settings, callbacks=(), history=(), penalty=None):
    """Wrap a network for training, at a constant rate unless callbacks change it.

    Parameters
    ----------
    module : RRRNet
        Frozen as it is to be trained.
    settings : Settings
    callbacks : iterable of skorch.callbacks.Callback
    history : iterable of dict
        Epochs that were trained before.
    penalty : callable or None, default=None
        See :func:`train`.

    Returns
    -------
    net : BranchNet
        Initialised, on the device of the settings.
    """
    quiet = {} if settings.verbose >= 2 else {"callbacks__print_log": None}
    net = BranchNet(
        module,
        settings=settings,
        penalty=penalty,
        criterion=BranchLoss,
        optimizer__fused=True,
        optimizer__weight_decay=settings.weight_decay,
        optimizer__param_groups=_parameter_groups(settings),
        lr=settings.learning_rate,
        max_epochs=settings.max_epochs,
        train_split=None,
        callbacks=[_FiniteLoss(), *callbacks],
        device=str(settings.device),
        verbose=int(settings.verbose >= 2),
        **OPTIMIZERS[settings.optimizer],
        **quiet,
    )
    net.initialize()
    net.history_ = History({**epoch, "batches": []} for epoch in history)
    return net


def _parameter_groups(settings):
    """Return the parameters that have a rate or a decay of their own, in skorch's form."""
    groups = {pattern: {"weight_decay": 0.0} for pattern in settings.undecayed}
    for pattern, factor in (*settings.lr_factors, ("stump.*", settings.stump_lr_factor)):
        if factor != 1:
            groups.setdefault(pattern, {})["lr"] = factor * settings.learning_rate
    return list(groups.items())


def train(module, images, validation, settings, rate=None, after_step=None, penalty=None):
    """Train a network as the paper does.

    Parameters
    ----------
    module : RRRNet
        Trained in place. It ends with the averaged weights; with early stopping, with
        those of the best epoch.
    images, validation : LabelledImages
        Validation may be None.
    settings : Settings
    rate : callable or None, default=None
        From a step, 0 to :func:`count_steps` - 1, to a factor on the learning rate, in place
        of the settings' schedule.
    after_step : callable or None, default=None
        Called with the number of steps so far, after each.
    penalty : callable or None, default=None
        From the images of a step, as the network has just seen them, to what is added to its
        loss.

    Returns
    -------
    net : BranchNet
        Ready to train on, with a fresh optimiser and the history so far.
    """
    if rate is None:
        rate = make_schedule(settings, count_steps(images, settings))
    callbacks = _callbacks(settings, validation, rate, after_step)
    net = make_net(module, settings, callbacks, penalty=penalty)
    net.warm_up(images)
    history = net.run(images, validation).history
    module.zero_grad(set_to_none=True)
    return make_net(module, settings, history=history)


def count_steps(images, settings):
    """Return the number of steps of a whole training."""
    batches = EpochBatches(len(images), settings.batch_size, settings.seed)
    return len(batches) * settings.max_epochs


def make_schedule(settings, total):
    """Return the settings' schedule over so many steps: from a step to a factor on the rate."""
    schedule = SCHEDULES[settings.lr_schedule]
    return lambda step: schedule(min(step / max(total, 1), 1))


def _callbacks(settings, validation, rate, after_step):
    yield LRScheduler(LambdaLR, lr_lambda=rate, step_every="batch", event_name=None)
    if after_step is not None:
        yield _AfterStep(after_step)
    if settings.ema_epochs and settings.patience is None:
        yield _WeightAveraging(settings.ema_epochs, settings.max_epochs)
    if validation is not None:
        yield PassthroughScoring("valid_acc", lower_is_better=False)
    if settings.verbose == 1:
        yield _ProgressBar(settings.max_epochs)
    if settings.patience is not None:
        yield _EarlyStopping(patience=settings.patience, threshold=0, load_best=True, sink=_silent)


def _silent(*_):
    pass
