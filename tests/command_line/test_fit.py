"""The command that fits and saves a model."""

import re
import shutil

import pytest

from sklearn_rrr import load
from sklearn_rrr.__main__ import main


@pytest.fixture
def fit(network, capsys):
    """Return a function that runs `fit` and returns its exit code, output and errors."""

    def run(folder, out, *options):
        code = main(["fit", str(folder), "--out", str(out), *network, *map(str, options)])
        return code, *capsys.readouterr()

    return run


def test_fit_saves_a_model(fit, photos, tmp_path):
    file = tmp_path / "m.safetensors"
    code, out, error = fit(photos, file)
    assert code == 0
    first, fitted, saved, hint = out.splitlines()
    assert first == "16 images of 2 classes (8 each), 24x24 pixels, no bad files, no duplicates"
    assert re.fullmatch(r"Fitted synth50 in \d+\.\d s", fitted)
    classifier = load(file)
    size = f"{file.stat().st_size / 1e6:.1f} MB, {classifier.n_parameters_:,} parameters"
    assert saved == f"Saved {file}: {size}"
    assert hint.endswith(f"python -m sklearn_rrr report {photos} --html report.html")
    assert error.startswith("Checking 16 files ...\nFitting to 16 images ...\n")
    assert re.search(r"RRRNet features: 100%.* 16/16 ", error)
    assert classifier.classes_.tolist() == ["blue", "red"]
    assert classifier.image_size_ == 64
    assert classifier.random_state == 0
    assert classifier.predict([str(photos / "red/00.png")]).tolist() == ["red"]


def test_options_reach_the_classifier(fit, photos, tmp_path):
    options = ["--blocks", 1, 1, 1, 1, "--n-branches", 2, "--random-state", 7]
    folder = tmp_path / "checkpoints"
    assert fit(photos, tmp_path / "m.safetensors", *options, "--checkpoint-dir", folder)[0] == 0
    classifier = load(tmp_path / "m.safetensors")
    assert classifier.blocks == (1, 1, 1, 1)
    assert (classifier.n_branches, classifier.random_state) == (2, 7)
    assert str(classifier.checkpoint_dir) == str(folder)


def test_existing_models_are_replaced_by_force_only(fit, photos, tmp_path):
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"precious")
    code, _, error = fit(photos, file)
    assert code == 1
    assert (
        error == f"error: {str(file)!r} exists. Choose another --out, or replace it by --force.\n"
    )
    assert file.read_bytes() == b"precious"
    assert fit(photos, file, "--force")[0] == 0
    assert load(file).classes_.tolist() == ["blue", "red"]


def test_files_that_cannot_be_written_are_found_first(fit, photos, tmp_path):
    assert fit(photos, tmp_path / "m.onnx")[::2] == (
        2,
        f"error: --out must be a file .safetensors; got {str(tmp_path / 'm.onnx')!r}.\n",
    )
    code, _, error = fit(photos, tmp_path / "missing/m.safetensors")
    assert code == 1
    assert "does not exist" in error


def test_splits_are_scored(fit, split_photos, picture, tmp_path):
    picture(split_photos / "val/red/0.png", "red", 0)
    picture(split_photos / "val/blue/0.png", "red", 1)  # a wrong label
    code, out, error = fit(split_photos, tmp_path / "m.safetensors", "--splits")
    assert code == 0
    assert "Fitting to 12 images" in error
    accuracies = [line for line in out.splitlines() if line.startswith("Accuracy")]
    assert accuracies == [
        "Accuracy on test: 1.000 (6 of 6; 95% interval 0.610 to 1.000)",
        "Accuracy on val: 0.500 (1 of 2; 95% interval 0.095 to 0.905)",
    ]
    assert "report" not in out


def test_splits_need_a_training_part(fit, split_photos, tmp_path):
    (split_photos / "train").rename(split_photos / "one")
    code, _, error = fit(split_photos, tmp_path / "m.safetensors", "--splits")
    assert code == 1
    assert "must be called train or training" in error
    assert "got one, test." in error


def test_bad_files_stop_or_are_skipped(fit, photos, tmp_path):
    (photos / "red/bad.png").write_bytes(b"no picture")
    file = tmp_path / "m.safetensors"
    code, out, error = fit(photos, file)
    assert code == 1
    assert "1 bad file" in out
    assert f"{photos}/red/bad.png: is not an image of a known format" in error
    assert error.splitlines()[-1].startswith("error: 1 of 17 files cannot be read.")
    assert not file.exists()
    code, _, error = fit(photos, file, "--on-bad-file", "skip")
    assert code == 0
    assert "Fitting to 16 images" in error


def test_labels_come_from_the_level(fit, split_photos, tmp_path):
    file, places = tmp_path / "m.safetensors", tmp_path / "places"
    shutil.move(split_photos / "train", places / "north")
    shutil.move(split_photos / "test", places / "south")
    code, out, _ = fit(places, file, "--level", 2)
    assert code == 0
    assert out.endswith("--html report.html --level 2\n")
    assert load(file).classes_.tolist() == ["blue", "red"]
    assert fit(places, file, "--force")[0] == 0
    assert load(file).classes_.tolist() == ["north", "south"]
    shutil.move(places / "north/red", places / "south/deep/red")
    assert fit(places, file, "--level", "leaf", "--force")[0] == 0
    assert load(file).classes_.tolist() == ["blue", "red"]


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(fit, photos, tmp_path):
    (photos / "notes.txt").write_text("x")
    code, _, error = fit(photos, tmp_path / "m.safetensors")
    assert code == 0
    assert error.startswith("warning: 1 file(s) or link(s) were skipped:\n  1 without an image")


@pytest.mark.filterwarnings("default")
def test_messages_name_options(fit, split_photos, photos, tmp_path):
    _, _, error = fit(split_photos, tmp_path / "m.safetensors")
    assert "warning: The sub-folders test, train look like splits" in error
    assert "Pass --splits to read the labels" in error
    code, _, error = fit(photos, tmp_path / "b.safetensors", "--blocks", 1, 1, 1, 9)
    assert code == 1
    assert error.splitlines()[-1].startswith("error: --blocks must be 4 ints from (1, 1, 1, 1) to")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_folders_without_images(fit, name, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, error = fit(tmp_path / name, tmp_path / "m.safetensors")
    assert code == 1
    assert error.startswith("error: ")
    assert name in error
