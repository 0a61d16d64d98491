"""Fonts: where they are, which characters they hold, which characters look alike.

Only Pillow is needed: a font lacks a character if it draws what it draws for a code point
that no font has.
"""

import os
import sys
from collections import defaultdict
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# First and last code point of what is drawn: letters, digits and signs of scripts that are
# drawn without joining their letters.
RANGES = (
    (0x0021, 0x007E),  # Latin, digits, punctuation
    (0x0391, 0x03C9),  # Greek
    (0x0410, 0x044F),  # Cyrillic
    (0x0531, 0x0587),  # Armenian
    (0x05D0, 0x05EA),  # Hebrew
    (0x10D0, 0x10F0),  # Georgian
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematical operators
    (0x25A0, 0x25FF),  # geometric shapes
    (0x2600, 0x26FF),  # symbols
    (0x2701, 0x27BE),  # dingbats
)
_PLACEHOLDERS = ("LastResortHE-Regular",)  # draws a frame for every character
_ABSENT = "\U000fffff"
_SYSTEM_FOLDERS = {
    "win32": ["C:/Windows/Fonts"],
    "darwin": ["/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"],
}


def find_fonts(folder=None, system=True):
    """Find TrueType and OpenType fonts.

    Parameters
    ----------
    folder : str, path or None, default=None
        Searched with its sub-folders. None: the fonts of installed Python packages
        (matplotlib's and those that announce "fonts_ttf") and of the system.
    system : bool, default=True
        Whether the system's fonts count where `folder` is None.

    Returns
    -------
    paths : list of pathlib.Path
        Sorted by the name of the file; of several files of one name the first.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> from pretraining.synthesis import find_fonts
    >>> paths = find_fonts()
    >>> "DejaVuSans.ttf" in [path.name for path in paths]
    True
    """
    folders = [Path(folder)] if folder is not None else _default_folders(system)
    found = {}
    for place in folders:
        for path in sorted(place.expanduser().rglob("*")):
            if path.suffix.lower() in (".ttf", ".otf") and path.stem not in _PLACEHOLDERS:
                found.setdefault(path.name, path)
    if not found:
        searched = ", ".join(map(str, folders))
        raise ValueError(
            f"No fonts (.ttf, .otf) in {searched}. Name a folder of fonts, or install some: "
            "matplotlib brings a few."
        )
    return [found[name] for name in sorted(found)]


def packaged_folders():
    """Return the folders of the fonts that installed Python packages bring."""
    packages = [entry.module for entry in metadata.entry_points(group="fonts_ttf")]
    folders = [_package_folder(name) for name in sorted(packages)]
    matplotlib = _package_folder("matplotlib")
    folders.append(matplotlib and matplotlib / "mpl-data" / "fonts")
    return [folder for folder in folders if folder is not None]


def _package_folder(name):
    for place in sys.path:
        folder = Path(place or os.curdir) / name
        if folder.is_dir():
            return folder
    return None


def _default_folders(system):
    names = _SYSTEM_FOLDERS.get(sys.platform, ["/usr/share/fonts", "~/.local/share/fonts"])
    return packaged_folders() + [Path(name) for name in names if system]


@lru_cache(maxsize=256)
def _open(path, size):
    # Not Raqm, which some builds of Pillow lack: all draw alike.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=256)
def _absent(path):
    return bytes(_open(path, 24).getmask(_ABSENT))


def holds(path, character):
    """Tell whether a font draws a character, and not as nothing or as one it lacks."""
    drawn = bytes(_open(path, 24).getmask(character))
    return any(drawn) and drawn != _absent(path)


def draw_character(path, character, size=64):
    """Draw a character as large as fits: uint8 (size, size), centred.

    What fits and is centred is Pillow's box, which holds the baseline and the advance, too:
    a quotation mark stays above the middle and a dot small.
    """
    box = _open(path, size).getbbox(character)
    longest = max(box[2] - box[0], box[3] - box[1], 1)
    font = _open(path, max(1, round(size * 0.9 * size / longest)))
    box = font.getbbox(character)
    image = Image.new("L", (size, size))
    corner = ((size - box[0] - box[2]) / 2, (size - box[1] - box[3]) / 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
    return np.asarray(image)


def find_characters(paths, ranges=RANGES):
    """Return {character: fonts that hold it} for printable characters of some ranges."""
    held = defaultdict(list)
    for path in paths:
        for first, last in ranges:
            for character in map(chr, range(first, last + 1)):
                if character.isprintable() and holds(path, character):
                    held[character].append(path)
    return dict(held)


def merge_homoglyphs(held, likeness=0.95):
    """Group characters that look the same in a font that holds both.

    Parameters
    ----------
    held : dict of str to list of path
        See :func:`find_characters`.
    likeness : float, default=0.95
        Intersection over union of the drawn pixels, (a . b) / (a . a + b . b - a . b), from
        which two characters are one; 1 for two that are drawn alike.

    Returns
    -------
    groups : list of list of str
        Each sorted, in the order of their first characters.
    """
    root = {character: character for character in held}

    def find(character):
        while root[character] != character:
            character = root[character]
        return character

    for path in _reference_fonts(held):
        characters = [c for c in sorted(held) if path in held[c]]
        drawn = [draw_character(path, c, 32) for c in characters]
        pixels = np.stack(drawn).reshape(len(drawn), -1).astype(np.float32) / 255
        common = pixels @ pixels.T
        area = common.diagonal()
        union = area[:, None] + area - common
        alike = common > likeness * union
        for i, j in np.argwhere(np.triu(alike, 1)):
            first, second = sorted((find(characters[i]), find(characters[j])))
            root[second] = first
    groups = defaultdict(list)
    for character in sorted(held):
        groups[find(character)].append(character)
    return [groups[key] for key in sorted(groups)]


def _reference_fonts(held):
    """Return as few fonts as hold every character, those that hold most first."""
    missing, chosen = set(held), []
    # By name: which of two equals is taken must not depend on where they are installed.
    fonts = sorted({path for paths in held.values() for path in paths}, key=lambda p: p.name)
    while missing:
        best = max(fonts, key=lambda path: sum(path in held[c] for c in missing))
        chosen.append(best)
        missing -= {c for c in missing if best in held[c]}
    return chosen
