"""Settings of fits that take a second."""

from sklearn_rrr import FineTuning

SMALL = {"backbone": "tiny", "max_epochs": 1, "batch_size": 16}
SMALL |= {"precision": "fp32", "random_state": 0, "tolerance": 1.0}
PLAIN = FineTuning(augmentation="none")
