"""Callbacks for skorch: averaged weights, early stopping, finite losses, progress."""

import math

from skorch import callbacks
from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm


class StopTraining(Exception):
    """Signal of early stopping, in place of skorch's KeyboardInterrupt."""


class EarlyStopping(callbacks.EarlyStopping):
    def on_epoch_end(self, net, **kwargs):
        try:
            super().on_epoch_end(net, **kwargs)
        except KeyboardInterrupt:
            raise StopTraining from None


class WeightAveraging(Callback):
    """Exponential moving average over the last E epochs, decay (E - 1) / E at each step.

    Norm statistics are averaged along with the weights.
    """

    def __init__(self, n_epochs, max_epochs):
        self.n_epochs, self.max_epochs = n_epochs, max_epochs

    def on_batch_end(self, net, training=False, **_):
        if not training or len(net.history) <= self.max_epochs - self.n_epochs:
            return
        parts = net.module_.trainable_parts()
        if not net.averages:
            self.begin(net)
        net.averages[0].update_parameters(parts)

    def begin(self, net):
        """Begin an average, and return it."""
        average = get_ema_multi_avg_fn((self.n_epochs - 1) / self.n_epochs)
        parts = net.module_.trainable_parts()
        net.averages.append(AveragedModel(parts, multi_avg_fn=average, use_buffers=True))
        return net.averages[0]

    def on_train_end(self, net, **_):
        if net.averages:
            put_averages(net.averages.pop(), net.module_.trainable_parts())


def put_averages(averages, parts):
    """Load the averages of trainable weights and of norm statistics.

    Batch counts are skipped, as averaging rounds them down, and so are frozen weights, as
    averaging turns -0.0 into 0.0.
    """
    held = {name for name, p in parts.named_parameters() if not p.requires_grad}
    state = averages.module.state_dict().items()
    learned = {k: v for k, v in state if v.is_floating_point() and k not in held}
    parts.load_state_dict(learned, strict=False)


class AfterStep(Callback):
    """Call a function after each step, with the number of steps so far."""

    def __init__(self, function):
        self.function = function

    def on_train_begin(self, net, **_):
        self.n_steps_ = 0

    def on_batch_end(self, net, training=False, **_):
        if training:
            self.n_steps_ += 1
            self.function(self.n_steps_)


class FiniteLoss(Callback):
    def on_epoch_end(self, net, **_):
        if not math.isfinite(net.history[-1, "train_loss"]):
            raise ValueError(
                f"The training loss became {net.history[-1, 'train_loss']} in epoch "
                f"{len(net.history)}. Use a smaller `learning_rate` (now "
                f"{net.settings.learning_rate:g}) or precision='fp32'."
            )


class ProgressBar(Callback):
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


def show_pass(net, images, batches):
    """Load batches for a pass that does not train; with ``verbose``, show a progress bar."""
    form = {"unit": "image", "desc": f"{type(net.module_).__name__} features"}
    with tqdm(total=len(images), disable=not net.settings.verbose, **form) as bar:
        for batch in net.load(images, batches):
            yield batch
            bar.update(len(batch[0]))
