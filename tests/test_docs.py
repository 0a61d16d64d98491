"""Build the documentation, and check that it contains every public name and method."""

import inspect
import os
import posixpath
import re
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import pytest

import sklearn_rrr
from sklearn_rrr import plotting

ROOT = Path(__file__).parents[1]
GENERATED = ("_build", "generated", "auto_examples")
PUBLIC = {f"sklearn_rrr.{name}": getattr(sklearn_rrr, name) for name in sklearn_rrr.__all__}
PUBLIC |= {f"sklearn_rrr.plotting.{name}": getattr(plotting, name) for name in plotting.__all__}


def list_members(cls):
    """Return the names of public methods and properties, without those of torch."""
    parents = [parent for parent in cls.__mro__ if not parent.__module__.startswith("torch.")]
    members = {name: value for parent in parents[::-1] for name, value in vars(parent).items()}
    return [
        name
        for name, value in members.items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, (property, cached_property)))
    ]


def test_members_include_inherited_methods_and_properties():
    members = list_members(sklearn_rrr.RRRNetClassifier)
    assert {"fit", "predict_proba", "score", "set_params", "net_"} <= set(members)
    assert "backbone" not in members
    assert "state_dict" not in list_members(sklearn_rrr.Backbone)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_examples_or_guide_mention_every_public_name(name):
    folders = (ROOT / "examples", ROOT / "docs" / "guide", ROOT / "docs" / "papers")
    pages = [*folders[0].glob("plot_*.py"), *folders[1].glob("*.rst"), *folders[2].glob("*.rst")]
    pages.append(ROOT / "docs" / "extending.rst")
    word = re.compile(rf"\b{name.rpartition('.')[2]}\b")
    assert any(word.search(page.read_text()) for page in pages)


@pytest.mark.slow
def test_build_has_no_warning_and_every_method(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns(*GENERATED))
    for name in ("examples", "tests", "benchmarks", "CHANGELOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", "site"],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        check=True,
    )
    inventory = pytest.importorskip("sphinx.util.inventory").InventoryFile
    with (tmp_path / "site" / "objects.inv").open("rb") as file:
        kinds = inventory.load(file, "", posixpath.join).values()
    known = {name for names in kinds for name in names}
    wanted = set(PUBLIC)
    for name, value in PUBLIC.items():
        if inspect.isclass(value):
            wanted |= {f"{name}.{member}" for member in list_members(value)}
    assert wanted - known == set()
    thumbnails = list((tmp_path / "docs" / "auto_examples" / "images" / "thumb").glob("*.png"))
    assert len(thumbnails) >= 12
