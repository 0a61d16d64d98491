"""Loss of a network with branches."""

import torch.nn.functional as F
from torch import nn

# --------------------------------------------------------------------------------- loss


class BranchLoss(nn.Module):
    """Weighted cross-entropy, summed over branches and averaged over the batch."""

    def forward(self, logits, labels, weights):
        """Return the loss of logits (B, M, K); labels, weights are (B,), or (B, M) by branch."""
        labels, weights = (
            t[:, None].expand(logits.shape[:2]) if t.ndim == 1 else t for t in (labels, weights)
        )
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / len(logits)
