"""Training loop of networks with branches, a skorch net.

RRR-Net (arXiv:2310.01157), section 4.2 and appendix C: cross-entropy of each branch, AdamW at a
constant learning rate, norms of the frozen stump adapted beforehand, weights averaged over the
last epochs. B is the batch size, M the number of branches, K the number of classes.
"""

import copy
import math
from contextlib import contextmanager, nullcontext, suppress

import numpy as np
import torch
from skorch import NeuralNet
from skorch.helper import predefined_split
from torch import nn

from sklearn_rrr._surroundings import set_dropout_generator
from sklearn_rrr._validation import find_invalid
from sklearn_rrr.images.sources import as_unit_float
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.onednn_convolutions import use_onednn
from sklearn_rrr.training.batches import EpochBatches, load_batches
from sklearn_rrr.training.callbacks import StopTraining, put_averages
from sklearn_rrr.training.devices import (
    explained_memory,
    prediction_batch,
    training_layout,
)
from sklearn_rrr.training.feature_cache import keep_features
from sklearn_rrr.training.memory import keeping_memory
from sklearn_rrr.training.norm_warmup import warm_up_norms
from sklearn_rrr.training.ridge_start import start_heads
from sklearn_rrr.training.settings import optimizer_parameters

# ---------------------------------------------------------------------------- skorch net


class BranchNet(NeuralNet):
    """skorch net that trains a network with branches; built by ``make_net``."""

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
        """Return a loader; it reads ahead if the CPU would wait for the device."""
        waits = torch.device(self.device).type != "cpu"
        return load_batches(images, batches, ahead=waits and not images.reads_dataset)

    def initialize_module(self):
        super().initialize_module()
        # Before the optimiser is made: a conversion may replace the parameters.
        self.layout = training_layout(self.module_, torch.device(self.device))
        self.module_.to(memory_format=self.layout)
        return self

    def initialize(self):
        super().initialize()
        self.augmentation_generator_ = torch.Generator(self.device)
        self.dropout_generator_ = torch.Generator(self.device)
        set_dropout_generator(self.module_, self.dropout_generator_)
        self.averages = []  # a list, as skorch rejects modules set outside initialize
        self.stumps, self.kept = [], False
        return self

    def initialize_optimizer(self, triggered_directly=None):
        # Without epochs, it has no parameters, and `on_train_begin` creates it: it imports the
        # compiler of torch, a second.
        return super().initialize_optimizer() if hasattr(self, "optimizer__fused") else self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        if not hasattr(self, "optimizer_"):
            vars(self).update(optimizer_parameters(self.settings))
            self._initialize_optimizer()

    def prepare(self, images, training):
        """Move a batch to the device, and augment it in training."""
        if self.kept:
            return tuple(part.to(self.device, non_blocking=True) for part in images)
        images = images.to(self.device, non_blocking=True)
        if training and self.settings.augmentation is not None:
            images = self.settings.augmentation(as_unit_float(images), self.augmentation_generator_)
        return images.contiguous(memory_format=self.layout)

    def autocast(self):
        return torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.settings.bf16
        )

    def infer(self, inputs, **_):
        """Return logits: (B, 3, S, S), or (M·B, 3, S, S) with B images per branch -> (B, M, K).

        If features are cached, the inputs are these features instead of images.
        """
        independent = self.module_.training and self.settings.sampling == "independent"
        with self.autocast():
            if self.kept and self.module_.is_frozen("branches"):
                (features,) = inputs  # (B, M, F)
                if independent:
                    parts = features.unflatten(0, (self.module_.n_branches, -1))  # (M, B, M, F)
                    features = parts.diagonal(dim1=0, dim2=2).transpose(1, 2)
                return self.module_.head(features)
            maps, features = inputs if self.kept else self.stump(inputs)
            if independent:
                maps, features = (
                    part.unflatten(0, (self.module_.n_branches, -1)).transpose(0, 1).flatten(1, 2)
                    for part in (maps, features)
                )  # (B, M·C, h, w) and (B, M, F)
                maps = maps.contiguous(memory_format=self.layout)
            return self.module_.forward_branches(maps, features)

    def stump(self, images):
        """Run the stump on images, with folded norms if it is frozen."""
        return self.stumps[0](images) if self.stumps else self.module_.forward_stump(images)

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
        if training:  # random numbers depend only on the seed and the epoch
            seed = self.settings.seed + len(self.history)
            self.dropout_generator_.manual_seed(seed)
            self.augmentation_generator_.manual_seed(seed)
            self.history.record("learning_rate", self.optimizer_.param_groups[-1]["lr"])
            self._train_epoch(iterator, prefix, step_fn, **fit_params)
            return
        with self.averaged_weights() if self.averages else nullcontext():
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _train_epoch(self, iterator, prefix, step_fn, **fit_params):
        """Run an epoch as skorch does, but read the losses once, so that the device need not wait.

        The losses share one tensor. Separate small tensors would fragment the memory, and
        prevent the reuse of large freed blocks.
        """
        losses = torch.empty(len(iterator), device=self.device)
        for i, batch in enumerate(iterator):
            self.notify("on_batch_begin", batch=batch, training=True)
            step = step_fn(batch, **fit_params)
            losses[i] = step["loss"]
            labels, _ = batch[1]
            self.history.record_batch(f"{prefix}_batch_size", len(labels))
            self.notify("on_batch_end", batch=batch, training=True, **step)
        batches = self.history[-1]["batches"]
        for row, loss in zip(batches, losses.tolist(), strict=True):
            row[f"{prefix}_loss"] = loss
        self.history.record(f"{prefix}_batch_count", len(losses))

    @contextmanager
    def averaged_weights(self):
        """Use the averaged weights inside the block, and restore the latest ones after it."""
        parts = self.module_.trainable_parts()
        latest = copy.deepcopy(parts.state_dict())
        put_averages(self.averages[0], parts)
        try:
            yield
        finally:
            parts.load_state_dict(latest)

    def run(self, images, validation=None, epochs=None, resume=None):
        """Continue training for `epochs`, by default ``settings.max_epochs``.

        `resume` is a function that is called when the training has begun; it brings the net into
        the state of an interrupted training, whose epochs then count.

        skorch's own `fit` would suppress a KeyboardInterrupt.

        Raises
        ------
        ValueError
            If the loss or the result is NaN or infinite, or the memory is exhausted.
        """
        given, epochs = images, self.settings.max_epochs if epochs is None else epochs
        if not epochs:
            self.module_.eval()
            self._check_result(given)
            return self
        try:
            with (
                explained_memory(self.settings.batch_size),
                keeping_memory(),
                self.folded_stump(),
                self.kept_features(images, validation, epochs) as (images, validation),
                suppress(StopTraining),
            ):
                self.set_params(train_split=predefined_split(validation) if validation else None)
                self.notify("on_train_begin", X=images, y=None)
                if resume is not None:
                    resume()
                    epochs = self.settings.max_epochs - len(self.history)
                self.fit_loop(images, epochs=epochs)
        finally:
            self.module_.eval()  # ready to predict, even after an interruption
        self.notify("on_train_end", X=images, y=None)
        self._check_result(given)
        return self

    def _check_result(self, images):
        """Raise if the network has invalid weights or outputs, which the loss does not show yet."""
        name, few = find_invalid(self.module_), list(range(min(8, len(images))))
        batch, _ = next(iter(self.load(images, [few])))
        with torch.no_grad():
            logits = self.module_(self.prepare(batch, training=False))
        if name is not None or not torch.isfinite(logits).all():
            raise ValueError(
                f"Training ended with {'outputs' if name is None else repr(name)} that are NaN or "
                f"infinite. Use a smaller `learning_rate` (now {self.settings.learning_rate:g}) "
                "or precision='fp32'."
            )

    @contextmanager
    def kept_features(self, images, validation, epochs):
        """Replace images by cached features of frozen parts, where all epochs share them."""
        used = self.settings.cache_features and self.settings.augmentation is None
        once = (epochs or self.settings.max_epochs) <= 1
        if not used or once or not self.module_.is_frozen("stump"):
            yield images, validation
            return
        example = self.frozen_features(images.__getitems__([0])[0])
        form = self.settings.batch_size, example
        with keep_features([images, validation], self.frozen_features, *form) as kept:
            self.kept = kept is not None
            try:
                yield kept or (images, validation)
            finally:
                self.kept = False

    def frozen_features(self, images):
        """Return the outputs of the frozen parts for a batch of images, a tuple of tensors."""
        self._set_training(False)
        with torch.no_grad(), self.autocast():
            parts = self.stump(self.prepare(images, training=False))
            pool = self.module_.is_frozen("branches")
            return (self.module_.pool_branches(*parts),) if pool else parts

    @contextmanager
    def folded_stump(self):
        """Run a frozen stump with folded norms, in the precision of the training."""
        if self.module_.is_frozen("stump"):
            stump = fold_norms(nn.Sequential(self.module_.normalize, self.module_.stump))
            if self.settings.bf16:
                stump[1].bfloat16()
            else:
                use_onednn(stump)
            self.stumps.append(stump.to(memory_format=self.layout))
        try:
            yield
        finally:
            self.stumps.clear()

    def warm_up(self, images):
        """Prepare training: adapt the norms of frozen parts, and initialise the heads."""
        if self.settings.norm_warmup_epochs:
            warm_up_norms(self, images)
        standardised = self.module_.head_features == "all" and self.settings.head_init != "kept"
        if self.settings.head_init == "ridge" or standardised:
            start_heads(self, images)
