"""Fonts and the characters they hold; characters as classes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pretraining.synthesis import canvas, fonts
from pretraining.synthesis.fonts import (
    draw_character,
    find_characters,
    find_fonts,
    holds,
    merge_homoglyphs,
)
from pretraining.synthesis.glyphs import Glyphs

LATIN, GREEK, CYRILLIC = "A", "Α", "А"
LETTERS = [(0x21, 0x7E), (0x391, 0x3C9), (0x410, 0x44F)]


@pytest.fixture(scope="module")
def held(few_fonts):
    return find_characters(find_fonts(few_fonts))


@pytest.fixture(scope="module")
def glyphs(few_fonts):
    return Glyphs(None, 32, seed=0, fonts=few_fonts)


# ------------------------------------------------------------------------------ the files


def test_finds_the_fonts_of_a_folder(bundled_fonts):
    names = [path.name for path in find_fonts(bundled_fonts)]
    assert names == sorted(names)
    assert {"DejaVuSans.ttf", "STIXGeneral.ttf", "cmr10.ttf"} <= set(names)
    assert {name.rsplit(".")[-1] for name in names} == {"ttf"}  # not their licences
    assert not [name for name in names if name.startswith("LastResort")]


def test_finds_fonts_in_sub_folders_each_name_once(few_fonts, tmp_path):
    for folder in ("b", "a/deep", "c"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(few_fonts / "DejaVuSans.ttf", tmp_path / folder)
    shutil.copy(few_fonts / "DejaVuSerif.ttf", tmp_path / "b" / "An.OTF")
    expected = [tmp_path / "b" / "An.OTF", tmp_path / "a" / "deep" / "DejaVuSans.ttf"]
    assert find_fonts(tmp_path) == find_fonts(str(tmp_path)) == expected


def test_finds_the_fonts_of_packages(monkeypatch):
    monkeypatch.setattr(fonts, "_SYSTEM_FOLDERS", {})
    monkeypatch.setattr(fonts.sys, "platform", "none")
    paths = find_fonts()
    assert "DejaVuSans.ttf" in [path.name for path in paths]
    assert len({path.name for path in paths}) == len(paths)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_no_fonts(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "font.txt").write_text("none")
    with pytest.raises(ValueError, match=rf"No fonts \(.ttf, .otf\) in .*{folder}. Name a folder"):
        find_fonts(tmp_path / folder)


# -------------------------------------------------------------------------- the characters


def test_a_font_lacks_a_character(few_fonts):
    sans, serif = few_fonts / "DejaVuSans.ttf", few_fonts / "DejaVuSerif.ttf"
    assert all(holds(path, c) for path in (sans, serif) for c in LATIN + GREEK + CYRILLIC)
    assert holds(sans, "א")
    assert not holds(serif, "א")
    assert not holds(sans, "中")
    assert not holds(sans, " ")  # nothing to see


def test_find_characters(few_fonts):
    paths = find_fonts(few_fonts)
    held = find_characters(paths, ranges=[(0x41, 0x43), (0x5D0, 0x5D0), (0x4E2D, 0x4E2D)])
    sans = few_fonts / "DejaVuSans.ttf"
    assert held == {"A": paths, "B": paths, "C": paths, "א": [sans]}


@pytest.mark.parametrize("size", [32, 64, 101])
@pytest.mark.parametrize("character", "AgjW|∑")
def test_characters_are_centred_and_as_large_as_fits(character, size, few_fonts):
    image = draw_character(few_fonts / "DejaVuSans.ttf", character, size)
    assert image.dtype == np.uint8
    assert image.shape == (size, size)
    rows, columns = ink(image)
    for line in (rows, columns):
        assert (line[0] + line[-1]) / 2 == pytest.approx((size - 1) / 2, abs=0.05 * size)
    assert 0.7 * size < max(len(rows), len(columns)) <= 0.97 * size


def ink(image):
    """Return the rows and the columns that a character covers."""
    return [np.flatnonzero(image.max(axis) > 60) for axis in (1, 0)]


def test_height_above_the_baseline_stays(few_fonts):
    comma, quotation_mark = (draw_character(few_fonts / "DejaVuSans.ttf", c) for c in ",’")
    assert ink(quotation_mark)[0][-1] < 40
    assert ink(comma)[0][-1] > 40


# -------------------------------------------------------------------------- the homoglyphs


def test_merges_homoglyphs(held):
    groups = merge_homoglyphs(held)
    assert [LATIN, GREEK, CYRILLIC] in groups
    group = {character: group[0] for group in groups for character in group}
    assert group["B"] == group["В"] == "B"  # the second is Cyrillic
    assert group["C"] == group["С"] == "C"
    assert len({group[c] for c in "ABCDEFGHabcdefgh0123456789"}) == 26


def test_groups_hold_every_character_once(held):
    groups = merge_homoglyphs(held)
    assert sorted(c for group in groups for c in group) == sorted(held)
    assert groups == sorted(sorted(group) for group in groups)


def test_groups_do_not_depend_on_order_or_place(bundled_fonts, tmp_path):
    names = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"]
    results = []
    for place, ordered in ("first", names), ("second", names[::-1]):
        for folder, name in zip("ab", ordered, strict=True):
            (tmp_path / place / folder).mkdir(parents=True)
            shutil.copy(bundled_fonts / name, tmp_path / place / folder)
        held = find_characters(find_fonts(tmp_path / place), ranges=LETTERS)
        results += [merge_homoglyphs(held), merge_homoglyphs(dict(reversed(held.items())))]
    assert results == [results[0]] * 4


def test_likeness(few_fonts):
    held = find_characters([few_fonts / "DejaVuSans.ttf"], ranges=LETTERS)
    strict, loose = (merge_homoglyphs(held, likeness) for likeness in (0.999, 0.5))
    assert [LATIN, GREEK, CYRILLIC] in strict
    assert len(loose) < len(strict)


# ------------------------------------------------------------------------------ the classes


def test_classes_are_groups_of_characters(glyphs, held):
    assert glyphs.n_classes == len(glyphs.characters) > 500
    assert glyphs.name(glyphs.characters.index([LATIN, GREEK, CYRILLIC])) == "AΑА"
    assert all(len(held[c]) >= 3 for group in glyphs.characters for c in group)


def test_some_classes_are_drawn_by_the_seed(glyphs, few_fonts):
    first, again, other = (Glyphs(40, 32, seed, few_fonts).characters for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 40
    assert first == sorted(first)
    assert all(group in glyphs.characters for group in first)


def test_too_many_classes(glyphs, few_fonts):
    n = glyphs.n_classes
    with pytest.raises(ValueError, match=rf"hold {n} different characters, not {n + 1};.*fewer"):
        Glyphs(n + 1, 32, seed=0, fonts=few_fonts)


def test_too_few_fonts(few_fonts):
    with pytest.raises(ValueError, match="No character is in 4 fonts or more; give more fonts"):
        Glyphs(None, 32, seed=0, fonts=few_fonts, min_fonts=4)


def test_a_pose_shows_the_character(glyphs):
    """Bent and turned, but not out of the image."""
    label = glyphs.characters.index(["W"])
    mask = glyphs._mask(*glyphs._shapes[label][0])
    inks = [glyphs._pose(mask, np.random.default_rng(seed)) for seed in range(50)]
    assert all(ink.shape == (32, 32) and 0 <= ink.min() <= ink.max() <= 1 for ink in inks)
    assert np.mean([ink.max() > 0.5 for ink in inks]) > 0.9
    assert np.mean([ink.mean() for ink in inks]) > 0.03


def test_without_chance_a_pose_is_the_drawing(glyphs, monkeypatch):
    """The mesh maps the drawing's corners onto the image's."""

    class NoChance:
        def integers(self, *_):
            return 7

        def uniform(self, *_):
            return 0.0

        def normal(self, _, __, shape):
            return np.zeros(shape)

    monkeypatch.setattr(canvas, "place", lambda n, *_, **__: canvas.coordinates(n))
    label = glyphs.characters.index(["W"])
    mask = glyphs._mask(*glyphs._shapes[label][0])
    posed = glyphs._pose(mask, NoChance())
    plain = np.asarray(mask.resize((32, 32), Image.Resampling.BOX), np.float32) / 255
    assert np.abs(posed - plain).mean() < 0.05
