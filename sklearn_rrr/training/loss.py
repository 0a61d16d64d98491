"""Loss of a network with branches."""

import torch.nn.functional as F
from torch import nn

# --------------------------------------------------------------------------------- loss


class BranchLoss(nn.Module):
    """Cross-entropy, summed over branches and averaged over the batch with weights."""

    def forward(self, logits, labels, weights):
        """(B, M, K) logits; labels and weights (B,), or (B, M) where branches differ."""
        labels, weights = (
            t[:, None].expand(logits.shape[:2]) if t.ndim == 1 else t for t in (labels, weights)
        )
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / len(logits)
