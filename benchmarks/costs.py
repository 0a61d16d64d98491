"""Costs of ResNet152, its reduced form and RRR-Net at the paper's image size.

    python -m benchmarks.costs

Weights are random, because costs do not depend on them.
"""

from pathlib import Path

import torch

from sklearn_rrr import cost_report, count_parameters, load_backbone
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet

RESULTS = Path(__file__).parent / "results"
MODELS = {
    "resnet152, 3_8_36_3": ("resnet152", {}),
    "resnet152, 1_1_1_1, unsplit": ("resnet152", {"blocks": (1, 1, 1, 1)}),
    "resnet152, 1_1_1_1, 8 branches": ("resnet152", {"blocks": (1, 1, 1, 1), "n_branches": 8}),
    "synth50, 1_1_1_1, 8 branches": ("synth50", {"blocks": (1, 1, 1, 1), "n_branches": 8}),
}


def report_costs(networks, **options):
    """Report prediction costs with folded norms, and parameter counts without folding."""
    folded = {
        name: fold_norms(network).to(memory_format=torch.channels_last)
        for name, network in networks.items()
    }
    n_parameters = [count_parameters(network) for network in networks.values()]
    return cost_report(folded, batch_sizes=(1, 32), **options).assign(n_parameters=n_parameters)


def main(n_classes=20):
    networks = {}
    for name, (key, form) in MODELS.items():
        backbone, _ = load_backbone(key, weights=None)
        network = RRRNet(backbone, n_classes, **form)
        networks[f"{name}, {network.image_size} px"] = network
    report = report_costs(networks, repeats=30)
    lines = [
        "| network | parameters, M | multiply-adds, M | 1 image, ms | 32 images, ms |",
        "|---|---|---|---|---|",
    ]
    for name, row in report.iterrows():
        lines.append(
            f"| {name} | {row.n_parameters / 1e6:.2f} | {row.macs / 1e6:.0f} "
            f"| {row.latency_1_ms:.1f} | {row.latency_32_ms:.0f} |"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "costs.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
