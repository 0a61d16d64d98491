"""Displays: a training, a search, costs, branches and their calibration, kernels, drawn.

As in scikit-learn, a display holds what it draws, a class method computes it, and ``plot`` draws
it again. matplotlib is imported when something is drawn.
"""

from sklearn_rrr.plotting.agreement import BranchAgreementDisplay
from sklearn_rrr.plotting.blocks import BlockSelectionDisplay
from sklearn_rrr.plotting.costs import CostRadarDisplay
from sklearn_rrr.plotting.kernels import KernelMosaicDisplay
from sklearn_rrr.plotting.reliability import ReliabilityDisplay
from sklearn_rrr.plotting.training import TrainingCurveDisplay

__all__ = [
    "BlockSelectionDisplay",
    "BranchAgreementDisplay",
    "CostRadarDisplay",
    "KernelMosaicDisplay",
    "ReliabilityDisplay",
    "TrainingCurveDisplay",
]
