"""Pre-trained networks: architectures, weights and recommended fine-tuning."""

from sklearn_rrr.backbones import mobilenet as _mobilenet  # noqa: F401  registers backbones
from sklearn_rrr.backbones import resnet as _resnet  # noqa: F401
