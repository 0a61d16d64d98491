"""What surrounds the package in its process: torch's settings, random generators, forks.

Nothing of it changes a result, and nothing that the package does changes it. Settings of torch
belong to a thread or to the process; inside :func:`shielded`, they are the usual ones. Random
numbers come from generators of our own, so fits in several threads repeat.
"""

import os
import threading
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sklearn_rrr._shared_blocks import fix_settings

HOME = os.getpid()
DRAWS = frozenset((
    "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "trunc_normal_",
    "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_",
    "sparse_", "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial",
))  # fmt: skip
_defaults = fix_settings(
    (torch.float32, torch.get_default_dtype, torch.set_default_dtype),
    (
        False,
        torch.__future__.get_overwrite_module_params_on_conversion,
        torch.__future__.set_overwrite_module_params_on_conversion,
    ),
)
_global_draws = threading.RLock()


def _settle_after_fork():
    """Replace the lock, and give torch one thread, as other threads do not survive a fork.

    The first parallel loop, such as the copy of a large tensor, would wait for OpenMP's threads for
    ever, also outside of this package: in pickle and in copy.deepcopy.
    """
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    global _global_draws
    _global_draws = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settle_after_fork)


@contextmanager
def shielded():
    """Use torch's usual settings inside the block, whatever the caller's are.

    They are float32, the CPU as default device, no autocast, no inference mode, gradients, and
    conversions of modules that change parameters instead of replacing them. In a forked process,
    torch has one thread, even if more were set there.
    """
    with ExitStack() as stack:
        if os.getpid() != HOME and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
                # Only the outermost autocast would clear the cache of weights after a step.
                stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
                torch.set_autocast_cache_enabled(False)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_defaults.entered())
        yield


class drawing(TorchFunctionMode):
    """Draw initial weights from a generator of our own instead of torch's global one.

    Parameters
    ----------
    seed : int

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr._surroundings import drawing
    >>> state = torch.get_rng_state()
    >>> with drawing(3):
    ...     one = torch.nn.Linear(2, 2)
    >>> with drawing(3):
    ...     other = torch.nn.Linear(2, 2)
    >>> torch.equal(one.weight, other.weight), torch.equal(state, torch.get_rng_state())
    (True, True)
    """

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        draws = getattr(function, "__name__", "") in DRAWS and kwargs.get("generator") is None
        devices = {x.device.type for x in args if isinstance(x, torch.Tensor)}
        if draws and devices <= {"cpu"}:
            kwargs["generator"] = self.generator
        return function(*args, **kwargs)


class Dropout(nn.Dropout):
    """Dropout whose generator can be set; None is torch's global one."""

    generator = None

    def __getstate__(self):
        return {k: v for k, v in super().__getstate__().items() if k != "generator"}

    def forward(self, x):
        if not self.training or self.generator is None or not self.p:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


def set_dropout_generator(network, generator):
    """Let all dropout layers of a network draw from a generator."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
        if isinstance(module, Dropout):
            module.generator = generator


@contextmanager
def seeded(seed, device):
    """Seed torch's global generators for code of a user, and restore their states afterwards.

    Only one thread at a time is inside.
    """
    devices = [device] if device.type == "cuda" else []
    with _global_draws, torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
