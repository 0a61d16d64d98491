"""Pre-trained networks as data: their architecture, weights and recommended fine-tuning."""

from sklearn_rrr.backbones import resnet as _resnet  # noqa: F401  registers its backbones
