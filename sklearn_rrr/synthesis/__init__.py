"""Images that code draws, with labels: what "synth50" was pre-trained on."""

from sklearn_rrr.synthesis.fonts import find_fonts
from sklearn_rrr.synthesis.images import SOURCES, SyntheticImages

__all__ = ["SOURCES", "SyntheticImages", "find_fonts"]
