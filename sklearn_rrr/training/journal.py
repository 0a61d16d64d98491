"""Journal of a long fit, with which it goes on where it was killed.

A fit is a sequence of trainings, separated by work that gives the same result again. The journal
stores the end of each training, and the state of the current one after each epoch. A fit that is
repeated with a journal skips what is done. Trainings find the journal of the fit around them by
themselves, so that estimators inside others need not know of it.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import joblib
from skorch.callbacks import Callback, LRScheduler, PassthroughScoring
from skorch.history import History

from sklearn_rrr.training.callbacks import AfterStep, EarlyStopping, WeightAveraging
from sklearn_rrr.training.checkpoints import CheckpointFolder, locked, simplify
from sklearn_rrr.training.fit_identity import describe_changes, identify

_current = ContextVar("journal", default=None)
# What callbacks remember from one epoch to the next.
REMEMBERED = {
    EarlyStopping: ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_"),
    PassthroughScoring: ("best_score_",),
    AfterStep: ("n_steps_",),
}


@contextmanager
def journaling(estimator):
    """Keep a journal of the fit inside the block; delete it when the fit has ended.

    The block begins before the first seed is drawn, as a RandomState then changes, and before
    images are read, which takes long. Inside another fit, the journal is that of the other.

    Parameters
    ----------
    estimator : estimator
        Its parameters identify the fit. `checkpoint_dir` is the folder of the journal; None keeps
        none.

    Yields
    ------
    begin : callable
        Function of all images of the fit, a LabelledSet, called before the first training.

    Raises
    ------
    TypeError, ValueError
        If the folder contains the journal of another fit, is in use, damaged or cannot be used.
    """
    if estimator.checkpoint_dir is None or _current.get() is not None:
        yield lambda images: None
        return
    folder = Path(estimator.checkpoint_dir) / "fit"  # the user's folder may contain other files
    with locked(folder):
        journal = Journal(folder, estimator)
        token = _current.set(journal)
        try:
            yield journal.begin
        finally:
            _current.reset(token)
        # The record first: a journal without a record is none, if the process dies meanwhile.
        (folder / "record.json").unlink()
        for path in folder.glob("training_*.joblib"):
            path.unlink()


def is_journaled():
    """Tell whether a fit around this code keeps a journal."""
    return _current.get() is not None


def settle_seed(seed):
    """Return a seed that was drawn, or the one that the interrupted fit drew in its place."""
    journal = _current.get()
    return seed if journal is None else journal.settle_seed(seed)


def open_entry(settings, modules, n_images):
    """Return the Entry of the training that begins now; None without a journal or an epoch."""
    journal = _current.get()
    if journal is None or not settings.max_epochs:
        return None
    sizes = [
        {k: tuple(v.shape) for k, v in module.state_dict().items() if hasattr(v, "shape")}
        for module in modules
    ]
    numbers = settings.max_epochs, settings.seed, settings.learning_rate, n_images
    return journal.open_entry(joblib.hash(simplify([sizes, numbers])))


class Journal:
    """Seeds and trainings of one fit, in a folder.

    Parameters
    ----------
    folder : path
    estimator : estimator
        Its parameters, at this moment, identify the fit.
    """

    def __init__(self, folder, estimator):
        self.path, self.identity = folder, identify(estimator)
        self.n_seeds = self.n_entries = 0

    def begin(self, images):
        """Open the record, after checking that it is of this fit, of these images."""
        fingerprints = images.fingerprints().items()
        identity = self.identity | {name: [digest, ""] for name, digest in fingerprints}
        record = {"identity": identity, "seeds": [], "ended": 0, "current": {}, "results": {}}
        self.folder = CheckpointFolder(self.path, record)
        if changes := describe_changes(self.folder.record["identity"], identity):
            raise ValueError(
                f"`checkpoint_dir`={str(self.path)!r} contains an unfinished fit with another "
                f"{changes}. Repeat that fit, use another folder, or delete this one."
            )
        self.folder.write_record()

    def settle_seed(self, seed):
        seeds = self.folder.record["seeds"]
        if self.n_seeds == len(seeds):
            seeds.append(seed)
            self.folder.write_record()
        self.n_seeds += 1
        return seeds[self.n_seeds - 1]

    def open_entry(self, form):
        self.n_entries += 1
        return Entry(self.folder, self.n_entries - 1, form)


class Entry:
    """One training in a journal.

    Attributes
    ----------
    state : dict or None
        What :meth:`write` stored last; None if the training did not finish its first epoch.
    has_ended : bool
    """

    def __init__(self, folder, index, form):
        self.folder, self.index, self.form = folder, index, form
        self.name = folder.record["current"].get(str(index))
        self.has_ended = index < folder.record["ended"]
        self.state = None if self.name is None else folder.load(self.name)
        if self.state is not None and self.state["form"] != form:
            raise ValueError(
                f"The unfinished fit in {str(folder.folder)!r} took another course: its training "
                f"{index} is not that of this fit. Delete the folder to start again."
            )

    def write(self, state, has_ended=False):
        """Store a state, then delete the one before."""
        epoch = len(state["history"])
        before, self.name = self.name, f"training_{self.index}_{epoch}{'_end' * has_ended}"
        self.folder.save(self.name, {**state, "form": self.form})
        self.folder.record["current"][str(self.index)] = self.name
        self.folder.record["ended"] = self.index + has_ended
        self.folder.write_record()
        if before not in (None, self.name):
            self.folder.drop([before])


class Keeper(Callback):
    """Write the state of a training into its Entry after each epoch; it is the last callback.

    Parameters
    ----------
    entry : Entry
    modules : sequence
        The network, and whatever else the training changes, with ``state_dict`` and
        ``load_state_dict``.
    """

    def __init__(self, entry, modules):
        self.entry, self.modules = entry, modules

    def on_epoch_end(self, net, **_):
        self.entry.write(describe(net, self.modules))


def describe(net, modules):
    """Return all that the next epochs of a training depend on."""
    rows = [{k: v for k, v in row.items() if k != "batches"} for row in net.history]
    remembered, begun = {}, hasattr(net, "optimizer_")  # not if there are no epochs
    for name, callback in net.callbacks_ if begun else ():
        if isinstance(callback, LRScheduler):
            remembered[name] = callback.lr_scheduler_.last_epoch
        for kind, names in REMEMBERED.items():
            if isinstance(callback, kind):
                remembered[name] = {n: getattr(callback, n) for n in names if hasattr(callback, n)}
    return {
        "modules": [module.state_dict() for module in modules],
        "frozen": [getattr(module, "frozen_names", None) for module in modules],
        "optimizer": net.optimizer_.state_dict() if begun else None,
        "averages": [average.state_dict() for average in net.averages],
        "history": rows,
        "callbacks": remembered,
    }


def restore(net, modules, state):
    """Bring a net, after its training has begun, into a state that :func:`describe` returned.

    The weights of `modules` must be restored before the training begins, as frozen parts are then
    folded; what was frozen in the course of the training was not folded.
    """
    for module, frozen in zip(modules, state["frozen"], strict=True):
        if getattr(module, "frozen_names", None) != frozen:
            module.hold(frozen)
    net.optimizer_.load_state_dict(state["optimizer"])
    net.history_ = History({**row, "batches": []} for row in state["history"])
    for name, callback in net.callbacks_:
        known = state["callbacks"].get(name)
        if isinstance(callback, LRScheduler):
            callback.lr_scheduler_.last_epoch = known
        elif known is not None:
            vars(callback).update(known)
        if isinstance(callback, WeightAveraging) and state["averages"]:
            callback.begin(net).load_state_dict(state["averages"][0])


def restore_modules(modules, state):
    """Load weights and statistics."""
    for module, content in zip(modules, state["modules"], strict=True):
        module.load_state_dict(content)
