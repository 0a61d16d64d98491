"""Penalty of NetTailor: expected complexity plus distance to the teacher, Eq. (11) and (12)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones.block import Block
from sklearn_rrr.nettailor.expected_complexity import expected_complexity
from sklearn_rrr.nettailor.paths import BLOCK
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.networks.norm_folding import fold_norms

COSTS = ("macs", "parameters")


# ----------------------------------------------------------------------------- costs and penalty


def path_costs(network, image_size, cost="macs"):
    """Return the cost C of each path, relative to the stem and all blocks together.

    Parameters
    ----------
    network : TailoredNet
        Soft network with all its blocks.
    image_size : int
        Height and width in pixels.
    cost : {"macs", "parameters"}, default="macs"
        Unit of cost: multiply-adds, as published, or parameters.

    Returns
    -------
    costs : dict of path to float
    """
    count = count_parameters
    if check_choice("cost", cost, COSTS) == "macs":
        products = _count_products(network, image_size)

        def count(part):
            return sum(products.get(module, 0) for module in part.modules())

    sizes = {
        (int(number), origin): count(node.part(origin))
        for number, node in network.branches.nodes.items()
        for origin in node.origins
    }
    blocks = sum(size for (_, origin), size in sizes.items() if origin == BLOCK)
    whole = count(network.stump) + blocks
    return {path: size / whole for path, size in sizes.items()}


def _count_products(network, image_size):
    """Return the multiply-adds of each convolution, {module: number}."""
    images = torch.zeros(1, 3, image_size, image_size, device=network.head.weight.device)
    copied = copy.deepcopy(network).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        copied(images)
    counts, root = counter.get_flop_counts(), type(network).__name__
    return {
        module: sum(counts[f"{root}.{name}"].values()) // 2
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }


class TailoringPenalty:
    """Context manager that computes γ1 E[C] + γ2 Ω, a term of the loss, Eq. (12).

    Ω, Eq. (11), sums the mean squared differences between student and teacher at each node and
    at the logits, divided by the number of nodes. Call with the images that the student has
    just processed.

    Parameters
    ----------
    student : TailoredNet
        Soft network.
    teacher : RRRNet
        Unsplit network with all blocks of the same backbone.
    costs : dict of path to float
        Result of :func:`path_costs`.
    complexity_weight, teacher_weight : float
        γ1 and γ2.
    device : torch.device
        Device of the training.
    """

    def __init__(self, student, teacher, costs, complexity_weight, teacher_weight, device):
        self.student, self.costs = student, costs
        self.complexity_weight, self.teacher_weight = complexity_weight, teacher_weight
        self.teacher = fold_norms(teacher).to(device, memory_format=torch.channels_last)
        self.seen, self.wanted, self.hooks = {}, {}, []

    def __enter__(self):
        if self.teacher_weight:
            nodes = {int(number): node for number, node in self.student.branches.nodes.items()}
            blocks = dict(enumerate(residual_blocks(self.teacher), 1))
            _watch(nodes | {"logits": self.student.head}, self.seen, self.hooks)
            blocks = {number: blocks[number] for number in nodes}
            _watch(blocks | {"logits": self.teacher.head}, self.wanted, self.hooks)
        return self

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
        self.seen.clear()
        self.wanted.clear()

    def __call__(self, images):
        penalty = torch.zeros((), device=images.device)
        if self.complexity_weight:
            alphas = self.student.alphas()
            expected = expected_complexity(alphas, self.costs, self.student.n_nodes)
            penalty = penalty + self.complexity_weight * expected
        if self.teacher_weight:
            with torch.no_grad():
                self.teacher(images)
            pairs = [(x.float(), self.wanted[name].float()) for name, x in self.seen.items()]
            distances = [F.mse_loss(*pair) for pair in pairs]
            penalty = penalty + self.teacher_weight * sum(distances) / (len(distances) - 1)
            self.seen.clear()  # frees their autograd graph, too
            self.wanted.clear()
        return penalty


def residual_blocks(network):
    """Return the blocks of a network in order."""
    return [m for m in network.modules() if isinstance(m, Block)]


def _watch(modules, outputs, hooks):
    """Store the output of each module in `outputs` under its name."""

    def keep(name):
        # A function, not a method: copying a network copies its hooks, which must not copy the
        # stored outputs.
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    hooks += [module.register_forward_hook(keep(name)) for name, module in modules.items()]
