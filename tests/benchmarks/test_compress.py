"""The benchmarks of smaller networks, on a folder of tiny sets and a tiny backbone."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import basis, granularity
from benchmarks.compress.__main__ import PRUNERS, TEXT, main
from benchmarks.compress.report import summarise, summarise_nettailor, summarise_retraining
from benchmarks.rows import read_rows

pytestmark = pytest.mark.filterwarnings("ignore:The backbone 'tiny' has no pre-trained weights")
SYSTEMS = "NetTailor; channels; kernels, progressive"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two sets of bright and dark images."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for name in ("BRIGHT", "DARK"):
        (folder / name / "images").mkdir(parents=True)
        rows = []
        for i in range(40):
            pixels = rng.integers(0, 80, (8, 8)) + 80 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / "images" / f"{i}.png")
            label, split = ("dark", "bright")[i % 2], "train" if i < 24 else "test"
            rows.append({"FILE_NAME": f"{i}.png", "CATEGORY": label, "SPLIT": split})
        pd.DataFrame(rows).to_csv(folder / name / "labels.csv", index=False)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* removed all that it may", "ignore:No student is within")
@pytest.mark.filterwarnings("ignore:ProgressiveKernelPruner may not")
def test_all_of_it_and_again(data, tmp_path, capsys):
    arguments = ["--data", str(data), "--results", str(tmp_path), "--systems", SYSTEMS]
    arguments += ["--models", str(tmp_path / "models"), "--shares", "0.3"]
    arguments += ["--backbone", "tiny", "--steps", "1"]
    main(arguments)
    rows = read_rows(tmp_path / "rows.csv", TEXT)
    assert len(rows) == 2 * 4
    assert rows.accuracy.between(0, 1).all()
    text = (tmp_path / "report.md").read_text()
    assert "## tiny, 1 steps" in text
    assert "### NetTailor and its teacher" in text
    assert (tmp_path / "pareto_tiny_1_0.png").exists()
    smaller = rows[rows.system == "channels"].n_parameters.max()
    assert smaller <= 0.7 * rows[rows.system == "fine-tuned"].n_parameters.min()
    capsys.readouterr()
    rows.iloc[:-1].to_csv(tmp_path / "rows.csv", index=False)
    main(arguments)
    assert capsys.readouterr().out.count("left") == 1


def test_unknown_systems_are_refused(data, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(data), "--systems", "magic"])
    assert "'magic' is none of RRR-Net, NetTailor, basis" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="holds no set 'OTHER'"):
        main(["--data", str(data), "--sets", "OTHER"])


def test_shares_of_the_start_and_gains():
    rows = pd.DataFrame(
        [
            ("fine-tuned", 0.0, "X", 0.8, 100),
            ("fine-tuned", 0.0, "Y", 0.6, 200),
            ("channels", 0.5, "X", 0.7, 50),
            ("channels", 0.5, "Y", 0.6, 80),
        ],
        columns=["system", "share", "set", "accuracy", "n_parameters"],
    ).assign(seed=0)
    table = summarise(rows).set_index("system")
    assert table.loc["channels", "gain"] == pytest.approx(-0.05)
    assert table.loc["channels", "n_parameters"] == pytest.approx((0.5 + 0.4) / 2)
    # Half of the 95 % t-interval of -0.1 and 0: 12.706 · 0.0707 / √2.
    assert table.loc["channels", "±"] == pytest.approx(0.6353, abs=1e-3)


def test_nettailor_beside_its_teacher():
    rows = pd.DataFrame(
        {
            "system": ["fine-tuned", "NetTailor"] * 2,
            "set": ["X", "X", "Y", "Y"],
            "seed": 0,
            "accuracy": 0.7,
            "n_parameters": [100, 60, 100, 80],
            "teacher_score": [np.nan, 0.8, np.nan, 0.8],
            "student_score": [np.nan, 0.795, np.nan, 0.9],
            "teacher_accuracy": [np.nan, 0.75, np.nan, 0.75],
        }
    )
    table = summarise_nettailor(rows)
    assert table["parameters gone"].tolist() == pytest.approx([0.4, 0.2])
    assert table["within .005, 35 % gone"].tolist() == ["yes", "no"]


def test_progressive_beside_usual_retraining():
    """Only of runs that both have; the mean is of sets."""
    rows = pd.DataFrame(
        [
            ("kernels, progressive", "X", 0, 0.8),
            ("kernels, progressive", "X", 1, 0.6),
            ("kernels, usual", "X", 0, 0.7),
            ("kernels, usual", "X", 1, 0.5),
            ("kernels, usual", "X", 2, 0.9),
            ("kernels, progressive", "Y", 0, 0.5),
            ("kernels, usual", "Y", 0, 0.8),
        ],
        columns=["system", "set", "seed", "accuracy"],
    ).assign(share=0.5)
    table = summarise_retraining(rows)
    assert table.index.tolist() == ["X, 0.5", "Y, 0.5", "mean, 0.5"]
    assert table.difference.tolist() == pytest.approx([0.1, -0.3, -0.1])
    assert table["±"].iloc[0] == pytest.approx(0, abs=1e-12)
    # Half of the 95 % t-interval of 0.1 and -0.3: 12.706 · 0.2828 / √2.
    assert table["±"].iloc[2] == pytest.approx(2.541, abs=1e-3)
    assert summarise_retraining(rows[rows.system == "kernels, usual"]) is None


def test_every_pruner_asks_for_the_share():
    for make in PRUNERS.values():
        pruner, left = make(None, 0.6), 1.0
        while pruner is not None:
            left *= 1 - pruner.target
            pruner = pruner.then
        assert left == pytest.approx(0.4)


@pytest.mark.slow
def test_basis_on_digits(tmp_path):
    arguments = ["--sets", "--backbone", "tiny", "--epochs", "1", "--targets", "0.3"]
    basis.main([*arguments, "--models", str(tmp_path), "--results", str(tmp_path)])
    rows = read_rows(tmp_path / "basis.csv", basis.TEXT)
    assert rows.groupby("way").size().to_dict() == {
        "basis": 5,
        "basis, then channels": 5,
        "fine-tuned": 5,
    }
    assert "## tiny on digits, 32 pixels, 1 epochs" in (tmp_path / "basis.md").read_text()
    small = rows[rows.way != "fine-tuned"].n_parameters
    assert (small <= 0.7 * rows[rows.way == "fine-tuned"].n_parameters.min()).all()


def test_granularity(tmp_path):
    arguments = ["--backbone", "tiny", "--image-size", "32", "--rounds", "2"]
    granularity.main([*arguments, "--shares", "0", "0.2", "--results", str(tmp_path)])
    table = pd.read_csv(tmp_path / "granularity.csv")
    assert (tmp_path / "granularity.png").exists()
    assert set(table.pruned) == {"elements", "channels", "blocks"}
    pruned = table[table.wanted == 0.2]
    assert (pruned.sparsity >= 0.19).all()
    elements = pruned[pruned.pruned == "elements"].parameters.item()
    assert pruned[pruned.pruned == "channels"].parameters.item() <= 0.8 * elements
    assert (table.low <= table.latency_ms).all()
