"""The commands of the guide, with their output."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from sklearn_rrr.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"


def mask(text):
    """Return a text without its numbers: times and sizes differ between machines."""
    return re.sub(r"\d[\d.,]*", "#", text)


@pytest.mark.slow
def test_guide_shows_real_output(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DOCS / "sample_photos.py"))  # fills the folder "photos"
    page = (DOCS / "guide" / "command_line.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. code-block:: console\n\n((?:   .*\n)+)", page)
    steps = re.split(r"^   \$ python -m sklearn_rrr ", "".join(blocks), flags=re.MULTILINE)[1:]
    assert [step.split()[0] for step in steps] == ["report", "fit", "predict", "predict"]
    for step in steps:
        command, *lines = step.splitlines()
        assert main(shlex.split(command)) == 0
        expected = "\n".join(line.removeprefix("   ") for line in lines)
        assert mask(capsys.readouterr().out.strip()) == mask(expected)
