"""The paper's benchmark on a folder of tiny sets: fits, resuming, statistics, figures."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import t, wilcoxon

from benchmarks.data import find_sets, fingerprint, read_set
from benchmarks.paper import blocks
from benchmarks.paper.__main__ import TEXT, main
from benchmarks.paper.statistics import (
    branch_errors,
    complete,
    half_widths,
    mean_errors,
    summarise,
)
from benchmarks.rows import read_rows

pytestmark = pytest.mark.filterwarnings("ignore:The backbone 'tiny' has no pre-trained weights")
MODELS = "A,B,C,D,E,2 branches"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two sets of bright and dark images; the second one says no split, and reads as missing."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for name, split in (("BRIGHT", True), ("NA", False)):
        (folder / name / "images").mkdir(parents=True)
        rows = []
        for i in range(90):
            pixels = rng.integers(0, 80, (8, 8)) + 80 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / "images" / f"{i}.png")
            rows.append({"FILE_NAME": f"{i}.png", "CATEGORY": ("dark", "bright")[i % 2]})
            if split:
                rows[-1]["SPLIT"] = "train" if i < 12 else "test"
        pd.DataFrame(rows).to_csv(folder / name / "labels.csv", index=False)
    return folder


def words(options):
    return [str(part) for option in options.items() for part in option]


def run(data, results, *more):
    options = {"--data": data, "--results": results, "--models": MODELS, "--seeds": 2}
    options |= {"--backbone": "tiny", "--epochs": 1}
    main(words(options) + list(more))
    return read_rows(results / "fits.csv", TEXT)


@pytest.mark.slow
def test_all_of_it_and_again(data, tmp_path, capsys):
    rows = run(data, tmp_path)
    assert len(rows) == 2 * 2 * 6
    assert rows.error.between(0, 1).all()
    assert (rows.epochs_trained == 1).all()
    assert set(rows.n_train) == {12, 40}
    assert set(rows.n_test) == {78, 40}
    report = (tmp_path / "report.md").read_text()
    assert "## tiny, default settings, 1 epochs" in report
    assert "Error against the number of branches" in report
    pictures = {path.name.split("_")[0] for path in tmp_path.glob("*.png")}
    assert pictures == {"errors", "gaps", "spider", "branches"}
    capsys.readouterr()
    rows.iloc[:-1].to_csv(tmp_path / "fits.csv", index=False)
    again = run(data, tmp_path)
    assert capsys.readouterr().out.count("left") == 1  # only what was missing
    key = ["model", "set", "seed"]
    left, right = (r.sort_values(key)[[*key, "error"]].to_numpy() for r in (rows, again))
    assert (left == right).all()
    both = run(data, tmp_path, "--settings", "shared", "--sets", "BRIGHT")
    assert set(both.settings) == {"default", "shared"}


def test_a_split_is_drawn_where_none_is_said(data):
    folder = find_sets(data)[1]
    parts = read_set(folder)
    train, test = (set(parts[name][0]) for name in ("train", "test"))
    assert len(train) == len(test) == 40
    assert train.isdisjoint(test)
    assert sorted(parts["train"][1]) == ["bright"] * 20 + ["dark"] * 20
    assert set(read_set(folder)["train"][0]) == train
    assert set(read_set(folder, seed=1)["train"][0]) != train


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("FILE_NAME,CATEGORY\na.png,x\n", "class 'x' has 1 images, 40 are needed"),
        ("FILE,CATEGORY\na.png,x\n", "no column FILE_NAME"),
        ("FILE_NAME,CATEGORY,SPLIT\na.png,x,train\n", "SPLIT must hold both"),
        ("FILE_NAME,CATEGORY,SPLIT\na.png,x,train\nb.png,,test\n", "line 3 names no CATEGORY"),
        ("FILE_NAME,CATEGORY,SPLIT\na.png,x,train\nb.png,y,test\n", "no image of 'y' to train"),
        ("FILE_NAME,CATEGORY,SPLIT\na.png,x,train\nb.png,x,test\n", r"there is no .*a\.png"),
    ],
)
def test_sets_that_cannot_be_used(tmp_path, content, words):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(SystemExit, match=words):
        read_set(tmp_path)


def test_wrong_options(data, tmp_path, capsys):
    with pytest.raises(SystemExit, match="holds no set 'OTHER'"):
        main(["--data", str(data), "--results", str(tmp_path), "--sets", "OTHER"])
    with pytest.raises(SystemExit):
        main(["--data", str(data), "--results", str(tmp_path), "--seeds", "0"])
    for option, value in (("--models", "F"), ("--settings", "mine")):
        with pytest.raises(SystemExit):
            main(["--data", str(data), "--results", str(tmp_path), option, value])
        assert f"{option}: '{value}' is none of" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="holds no set"):
        main(["--data", str(tmp_path), "--results", str(tmp_path)])


def test_other_labels_are_other_data(data, tmp_path):
    folder = find_sets(data)[0]
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    copied = shutil.copytree(folder, tmp_path / folder.name)
    table = pd.read_csv(copied / "labels.csv")
    table.assign(CATEGORY=table.CATEGORY[::-1].to_numpy()).to_csv(copied / "labels.csv")
    assert fingerprint(copied) != before


# ------------------------------------------------------------------------------ statistics


@pytest.fixture
def rows():
    """E is better than C by .1 on each of six sets; three seeds around each."""
    table = [
        {"set": f"S{i}", "model": model, "seed": seed, "fit_seconds": 1.0, "jobs": 1}
        | {"error": 0.1 * i + (0.2 if model == "C" else 0.1) + 0.01 * (seed - 1)}
        for i in range(6)
        for model in "CE"
        for seed in range(3)
    ]
    return pd.DataFrame(table)


def test_statistics(rows):
    table = summarise(rows)
    assert table.loc["E", "mean error"] == pytest.approx(0.35)
    assert table.loc["C", "mean error"] == pytest.approx(0.45)
    assert table.loc["C", "mean rank"] == 2
    assert table.loc["C", "E better on"] == 6
    assert table.loc["C", "p, E better"] == pytest.approx(1 / 2**6)
    errors = mean_errors(rows)
    expected = wilcoxon(errors.E - errors.C, alternative="less").pvalue
    assert table.loc["C", "p, E better"] == expected
    width = t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    np.testing.assert_allclose(half_widths(rows), width)


def test_only_complete_sets_are_compared(rows):
    part = complete(rows.iloc[:-1])
    assert len(part) == len(rows) - 2
    assert not ((part.set == "S5") & (part.seed == 2)).any()


def test_errors_against_branches(rows):
    more = rows[rows.model == "E"].assign(model="2 branches", error=0.3)
    table = branch_errors(pd.concat([rows, more]))
    assert table.index.tolist() == [1, 2, 8]
    assert table["mean error"].tolist() == pytest.approx([0.45, 0.3, 0.35])
    assert table["± over seeds"].iloc[0] == pytest.approx(t.ppf(0.975, 2) * 0.01 / np.sqrt(3))
    assert branch_errors(rows).empty


def test_block_selection_curve(data, tmp_path):
    options = {"--data": data, "--set": "BRIGHT", "--results": tmp_path, "--seeds": 2}
    options |= {"--backbone": "tiny", "--epochs": 1, "--checkpoints": tmp_path / "searches"}
    blocks.main(words(options))
    rows = pd.read_csv(tmp_path / "blocks_tiny_BRIGHT_sequential.csv")
    assert len(rows) == 2 * 5  # three networks and two controls
    assert (tmp_path / "blocks_tiny_BRIGHT_sequential.png").exists()
    mean, half = blocks.mean_and_interval(rows[rows.control])
    assert mean.index.tolist() == [2, 3]
    errors = 1 - rows[rows.control & (rows.epochs == 3)].score
    assert mean[3] == pytest.approx(errors.mean())
    assert half[3] == pytest.approx(t.ppf(0.975, 1) * errors.std() / np.sqrt(2))
