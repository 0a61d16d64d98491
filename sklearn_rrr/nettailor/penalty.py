"""Penalty of NetTailor: expected complexity, and distance from the teacher, Eq. (10) to (12)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, Bottleneck

from sklearn_rrr._validation import check_choice
from sklearn_rrr.nettailor.paths import BLOCK, expected_complexity
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.networks.norm_folding import fold_norms

COSTS = ("macs", "parameters")


# -------------------------------------------------------------------------- what it is pulled to


def path_costs(network, image_size, cost="macs"):
    """Return C of each path of a soft network, over that of the stem and all blocks together.

    Parameters
    ----------
    network : TailoredNet
        With all its blocks.
    image_size : int
        Height and width in pixels.
    cost : {"macs", "parameters"}, default="macs"
        Multiply-adds, as published, or parameters.

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
    """What is added to the cross-entropy, Eq. (12): γ1 E[C] + γ2 Ω; a context manager.

    Ω, Eq. (11), is the mean squared difference of each node from the teacher's and of the logits,
    divided by the number of nodes. Called with the images that the student has just seen.

    Parameters
    ----------
    student : TailoredNet
        Soft.
    teacher : RRRNet
        Of the same backbone, whole and unsplit.
    costs : dict of path to float
        Of :func:`path_costs`.
    complexity_weight, teacher_weight : float
        γ1 and γ2.
    device : torch.device
        Where they are trained.
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
            self.seen.clear()  # with the graph that made them
            self.wanted.clear()
        return penalty


def residual_blocks(network):
    """Return the residual blocks of a network in order."""
    return [m for m in network.modules() if isinstance(m, (BasicBlock, Bottleneck))]


def _watch(modules, outputs, hooks):
    """Keep the output of each module in `outputs`, by its name."""

    def keep(name):
        # A function, and no method: networks are copied with their hooks, which must not
        # bring along what they keep.
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    hooks += [module.register_forward_hook(keep(name)) for name, module in modules.items()]
