"""Run the code of the README and of the pages of the documentation, and compare its output."""

import doctest
import runpy
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FILES = [ROOT / "README.md", DOCS / "index.rst", DOCS / "quickstart.rst"]
FILES += [*DOCS.glob("guide/*.rst"), *DOCS.glob("papers/*.rst")]
SLOW = {"README", "quickstart", "calibration_rejection", "deploy", "shrink", "tune"}
SLOW |= {"basis_scaling", "nettailor"}  # 10 s or more
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def photos():
    """Fill the folder "photos" with the pictures of the quickstart."""
    runpy.run_path(str(DOCS / "sample_photos.py"))


@pytest.fixture
def names(tmp_path, monkeypatch, request):
    """Return what the pages assume: images and labels, and access to fixtures, in a new folder."""
    monkeypatch.chdir(tmp_path)
    data = load_digits(n_class=4)
    X, y = data.images[:100] / 16, data.target[:100]
    names = {"X": X[:64], "y": y[:64], "X_test": X[64:], "y_test": y[64:]}
    return names | {"getfixture": request.getfixturevalue}


def mark(path):
    slow = [pytest.mark.slow] if path.stem in SLOW else []
    return pytest.param(path, marks=slow, id=path.stem)


@pytest.mark.parametrize("path", [mark(p) for p in sorted(FILES) if ">>>" in p.read_text()])
def test_page(path, names):
    failed, _ = doctest.testfile(str(path), module_relative=False, globs=names, optionflags=FLAGS)
    assert not failed, f"the output shows the failures in {path}"
