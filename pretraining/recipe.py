"""The recipe of synth50: every number that its weights depend on."""

import json
from dataclasses import asdict, dataclass, field, replace

from torch import nn

from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import make_resnet

# Of the fonts of the extra "pretraining", by pretraining.__main__.hash_files.
FONTS_SHA256 = "3c9090ed44e06ff525d9b397d113efab6588b2fd2f44fd8dae2b5aff3331818e"


@dataclass(frozen=True)
class Recipe:
    """What is drawn, which network learns from it, and how.

    Parameters
    ----------
    classes : dict of str to int
        Classes of each source of images.
    per_class : int
        Images drawn of each class.
    size : int
        Height and width of the images.
    planes : tuple of 4 int or None
        Planes of each phase; None takes those of the registered synth50.
    whole_from : float
        Share of the steps in which only the first block of each phase runs and learns, the
        network that RRR-Net reuses by default. The other blocks join then, as identities,
        and learn alone: what came before them stays as it is.
    objective : {"classes", "pairs", "both"}
        Cross-entropy over classes; the supervised contrastive loss (Khosla et al. 2020,
        Eq. (2)) over pairs of a class; or their sum.
    temperature : float
        Of the contrastive loss.
    steps, batch_size, learning_rate, weight_decay, label_smoothing
        AdamW; for the first blocks, and anew for the others, the rate goes up over a
        twentieth of the steps and down along a cosine.
    precision : {"fp32", "bf16"}
        Arithmetic of the products; bf16 is slow where the hardware lacks it.
    seed : int
    """

    classes: dict = field(
        default_factory=lambda: {
            "contours": 450,
            "fractals": 150,
            "glyphs": 350,
            "leaves": 450,
            "programs": 400,
            "spectra": 200,
        }
    )
    per_class: int = 140
    size: int = 64
    planes: tuple | None = None
    whole_from: float = 0.92
    objective: str = "classes"
    temperature: float = 0.1
    steps: int = 16_000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    precision: str = "bf16"
    seed: int = 0

    @property
    def n_classes(self):
        return sum(self.classes.values())

    def shortened(self, steps):
        """Return the recipe with other steps, and no more images than they can use."""
        needed = -(-steps * self.batch_size // self.n_classes)
        return replace(self, steps=steps, per_class=min(self.per_class, needed))

    def make_network(self):
        """Build the network with random weights, from torch's generator."""
        registered = make_backbone("synth50")
        network = make_resnet(
            "synth50",
            Bottleneck,
            registered.depths,
            self.planes or registered.planes,
            image_size=self.size,
            n_classes=self.n_classes,
        )
        for phase in network.phases:
            for block in phase[1:]:
                nn.init.zeros_(block.bn3.weight)
        return network

    def as_json(self):
        return json.dumps(asdict(self))
