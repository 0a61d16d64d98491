"""Latency against sparsity for pruned elements, channels or blocks (RRR-Net, Figure 3).

    python -m benchmarks.granularity

Times one image of 128 pixels through ResNet152 on the CPU and, if available, on a GPU. Weights are
random, because latency does not depend on them. Pruned elements are zeros in dense tensors;
channels and blocks are removed. Networks have folded norms and run in interleaved rounds.
"""

import argparse
import copy
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from torch.nn.utils import prune

from sklearn_rrr import ChannelPruner, count_parameters, load_backbone, measure_latency
from sklearn_rrr.networks.costs import median_interval
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.pruning.removal import drop_blocks, removable_blocks
from sklearn_rrr.pruning.run import count_nonzero

matplotlib.use("agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
SHARES = np.arange(0, 0.91, 0.1)


class Untrained:
    """Substitute for a PruningRun, sufficient for criteria that need no images."""

    batches = None

    def __init__(self, network):
        self.network, self.image_size = network, network.image_size

    def put(self, network):
        self.network = network


def prune_elements(network, share):
    network = copy.deepcopy(network)
    weights = [(m, "weight") for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    number = round(share * count_parameters(network))
    prune.global_unstructured(weights, prune.L1Unstructured, amount=number)
    for weight in weights:
        prune.remove(*weight)
    return network


def prune_channels(network, share):
    """Remove the channels with the smallest L1 norms in the whole network."""
    run = Untrained(network)
    ChannelPruner(criterion="l1")._cut(run, (1 - share) * count_parameters(network))
    return run.network


def prune_blocks(network, share):
    """Remove blocks, conv4_x before other phases, last ones first; return None if too few."""

    def order(name):
        phase, _, number = name.rpartition(".")
        return phase != "branches.0", -int(number)

    names = sorted(removable_blocks(network), key=order)
    limit = (1 - share) * count_parameters(network)
    for number in range(len(names) + 1):
        made = copy.deepcopy(network)
        drop_blocks(made, names[:number])
        if count_parameters(made) <= limit:
            return made
    return None


KINDS = {"elements": prune_elements, "channels": prune_channels, "blocks": prune_blocks}


def make_networks(backbone, shares):
    """Return a row for each kind and share: the network with folded norms, and its sparsity."""
    loaded, _ = load_backbone(backbone, weights=None)
    network = RRRNet(loaded, n_classes=20).eval()
    total, rows = count_nonzero(network.parameters()), []
    for kind, function in KINDS.items():
        for share in shares:
            made = function(network, share)
            if made is None:
                continue
            rows.append(
                {
                    "pruned": kind,
                    "wanted": round(float(share), 3),
                    "sparsity": 1 - count_nonzero(made.parameters()) / total,
                    "parameters": count_parameters(made),
                    "network": fold_norms(made).to(memory_format=torch.channels_last),
                }
            )
    return rows


def time_in_turns(rows, device, rounds, image_size):
    """Return the median latency and its 95 % interval of each network over interleaved rounds."""
    times = [
        [
            measure_latency(row["network"], 1, image_size, device, repeats=3, warmup=1).median
            for row in rows
        ]
        for _ in range(rounds)
    ]
    ordered = np.sort(times, axis=0)
    return [(float(np.median(column)), *median_interval(column)) for column in ordered.T]


def draw(table, path, title):
    devices = table.device.unique()
    figure, axes = pyplot.subplots(
        1, len(devices), figsize=(6 * len(devices), 4), squeeze=False, layout="constrained"
    )
    for ax, device in zip(axes[0], devices, strict=True):
        for kind, part in table[table.device == device].groupby("pruned", sort=False):
            spread = [part.latency_ms - part.low, part.high - part.latency_ms]
            gone = 100 * part.sparsity
            ax.errorbar(gone, part.latency_ms, spread, fmt="o-", capsize=2, label=kind)
        ax.set(xlabel="parameters gone or zero, %", ylabel="latency of one image, ms")
        ax.set(title=f"{title}, {device}", ylim=(0, None))
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet152")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES.round(1).tolist())
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = make_networks(options.backbone, options.shares)
    tables = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        timed = time_in_turns(rows, device, options.rounds, options.image_size)
        table = pd.DataFrame(rows).drop(columns="network").assign(device=device)
        table[["latency_ms", "low", "high"]] = timed
        table["ratio"] = table.latency_ms / table.latency_ms[0]
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    options.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.results / "granularity.csv", index=False, float_format="%.5g")
    title = f"{options.backbone}, {options.image_size} pixels"
    draw(table, options.results / "granularity.png", title)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
