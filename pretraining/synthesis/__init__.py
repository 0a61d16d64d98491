"""Images that code draws, with labels: what "synth50" was pre-trained on."""

from pretraining.synthesis.fonts import find_fonts
from pretraining.synthesis.images import SOURCES, SyntheticImages

__all__ = ["SOURCES", "SyntheticImages", "find_fonts"]
