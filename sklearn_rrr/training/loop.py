"""Training of a network as in RRR-Net (arXiv:2310.01157, section 4.2)."""

from contextlib import contextmanager
from functools import partial

from skorch.callbacks import LRScheduler, PassthroughScoring
from skorch.history import History
from torch.optim.lr_scheduler import LambdaLR

from sklearn_rrr.training.batches import EpochBatches
from sklearn_rrr.training.branch_net import BranchNet
from sklearn_rrr.training.callbacks import (
    AfterStep,
    EarlyStopping,
    FiniteLoss,
    ProgressBar,
    WeightAveraging,
)
from sklearn_rrr.training.journal import Keeper, describe, open_entry, restore, restore_modules
from sklearn_rrr.training.loss import BranchLoss
from sklearn_rrr.training.settings import SCHEDULES, optimizer_parameters


def make_net(module, settings, callbacks=(), history=(), penalty=None):
    """Wrap a network for training, at a constant learning rate unless callbacks change it.

    Parameters
    ----------
    module : RRRNet
        Network whose parts are already frozen as needed.
    settings : Settings
    callbacks : iterable of skorch.callbacks.Callback
    history : iterable of dict
        Records of the epochs trained so far.
    penalty : callable or None, default=None
        See :func:`train`.

    Returns
    -------
    net : BranchNet
        Initialised, on ``settings.device``.
    """
    quiet = {} if settings.verbose >= 2 else {"callbacks__print_log": None}
    net = BranchNet(
        module,
        settings=settings,
        penalty=penalty,
        criterion=BranchLoss,
        lr=settings.learning_rate,
        max_epochs=settings.max_epochs,
        train_split=None,
        callbacks=[FiniteLoss(), *callbacks],
        device=str(settings.device),
        verbose=int(settings.verbose >= 2),
        **(optimizer_parameters(settings) if settings.max_epochs else {}),
        **quiet,
    )
    net.initialize()
    net.history_ = History({**epoch, "batches": []} for epoch in history)
    return net


def train(
    module, images, validation, settings, rate=None, after_step=None, penalty=None, others=()
):
    """Train a network as in RRR-Net.

    Parameters
    ----------
    module : RRRNet
        Trained in place. It ends with the averaged weights or, with early stopping, with
        the weights of the best epoch.
    images, validation : LabelledSet
        Training and validation images; `validation` may be None.
    settings : Settings
    rate : callable or None, default=None
        Function from a step, 0 to :func:`count_steps` - 1, to a factor on the learning rate.
        None uses the schedule of `settings`.
    after_step : callable or None, default=None
        Function called after each step with the number of steps so far.
    penalty : callable or None, default=None
        Function from the images of a step, after the network's forward pass on them, to a
        term added to the loss.
    others : sequence, default=()
        Other networks, or objects with ``state_dict`` and ``load_state_dict``, that change
        meanwhile, for the journal of the fit.

    Returns
    -------
    net : BranchNet
        Ready for further training, with a fresh optimiser and the history so far.
    """
    if rate is None:
        rate = make_schedule(settings, count_steps(images, settings))
    modules = (module, *others)
    entry = open_entry(settings, modules, len(images))
    state = None if entry is None else entry.state
    if state is not None:
        restore_modules(modules, state)
        if entry.has_ended:
            return make_net(module, settings, history=state["history"])
    callbacks = [*_callbacks(settings, validation, rate, after_step)]
    if entry is not None:
        callbacks.append(Keeper(entry, modules))
    net = make_net(module, settings, callbacks, penalty=penalty)
    if state is None:
        net.warm_up(images)
    resume = None if state is None else partial(restore, net, modules, state)
    with handing_over(net):
        history = net.run(images, validation, resume=resume).history
    module.zero_grad(set_to_none=True)
    if entry is not None:
        entry.write(describe(net, modules), has_ended=True)
    return make_net(module, settings, history=history)


@contextmanager
def handing_over(net):
    """Attach the records of the completed epochs to a KeyboardInterrupt, as ``history``.

    Its presence tells that the training had begun, so that the network is worth keeping.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        error.history = [epoch for epoch in net.history if "train_loss" in epoch]
        raise


def count_steps(images, settings):
    """Return the number of steps in ``settings.max_epochs`` epochs."""
    batches = EpochBatches(len(images), settings.batch_size, settings.seed)
    return len(batches) * settings.max_epochs


def make_schedule(settings, total):
    """Return the schedule over `total` steps: a function from step to learning-rate factor."""
    schedule = SCHEDULES[settings.lr_schedule]
    return lambda step: schedule(min(step / max(total, 1), 1))


def _callbacks(settings, validation, rate, after_step):
    yield LRScheduler(LambdaLR, lr_lambda=rate, step_every="batch", event_name=None)
    if after_step is not None:
        yield AfterStep(after_step)
    if settings.ema_epochs and settings.patience is None:
        yield WeightAveraging(settings.ema_epochs, settings.max_epochs)
    if validation is not None:
        yield PassthroughScoring("valid_acc", lower_is_better=False)
    if settings.verbose == 1:
        yield ProgressBar(settings.max_epochs)
    if settings.patience is not None:
        yield EarlyStopping(patience=settings.patience, threshold=0, load_best=True, sink=_silent)


def _silent(*_):
    pass
