"""The command that writes labels to a CSV file."""

import csv
import os
import sys

import numpy as np
import pytest

from sklearn_rrr import OnnxClassifier, export_onnx, load
from sklearn_rrr.__main__ import main
from sklearn_rrr.command_line.predict import open_table


@pytest.fixture
def predict(model, tmp_path, capsys):
    """Return a function that runs `predict` and returns its exit code, rows and messages."""

    def run(*arguments, model=model):
        file = tmp_path / "out.csv"
        code = main(["predict", str(model), *map(str, arguments), "--csv", str(file)])
        return code, read_rows(file) if code < 2 and file.exists() else [], capsys.readouterr()

    return run


def read_rows(file):
    with open(file, newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return list(csv.DictReader(lines))


def test_folders_are_predicted_at_any_depth(predict, photos, model):
    deep = photos / "a/b/c.png"
    deep.parent.mkdir(parents=True)
    (photos / "blue/00.png").rename(deep)
    code, rows, (out, error) = predict(photos)
    assert code == 0
    assert list(rows[0]) == ["path", "label", "probability", "error"]
    assert [row["path"] for row in rows] == sorted(map(str, photos.rglob("*.png")))
    assert [row["label"] for row in rows] == ["blue"] * 8 + ["red"] * 8
    assert {row["error"] for row in rows} == {""}
    expected = load(model).predict_proba([row["path"] for row in rows]).max(1)
    assert np.allclose([float(row["probability"]) for row in rows], expected, atol=1e-6)
    assert out.startswith("16 images: 16 labelled (")
    assert error == ""


def test_probabilities_of_each_class(predict, photos):
    _, rows, _ = predict(photos, "--proba")
    assert list(rows[0]) == ["path", "label", "probability", "error", "p_blue", "p_red"]
    for row in rows:
        assert float(row["p_blue"]) + float(row["p_red"]) == pytest.approx(1, abs=2e-6)
        assert row["probability"] == row[f"p_{row['label']}"]


def test_unsure_labels_are_left_out(predict, photos):
    _, rows, _ = predict(photos)
    numbers = np.array([float(row["probability"]) for row in rows])
    low, high = np.unique(numbers)[2:4]
    threshold = (low + high) / 2
    n_unsure = int((numbers < threshold).sum())
    _, rows, (out, _) = predict(photos, "--threshold", threshold)
    assert sum(row["label"] == "" for row in rows) == n_unsure
    assert all((row["label"] == "") == (float(row["probability"]) < threshold) for row in rows)
    assert out.startswith(f"16 images: {16 - n_unsure} labelled, {n_unsure} below the threshold (")


def test_chunks_do_not_change_the_rows(predict, photos):
    _, rows, _ = predict(photos, "--proba")
    assert predict(photos, "--proba", "--batch", 3)[1] == rows


def test_bad_files_are_listed(predict, photos):
    (photos / "blue/03.png").write_bytes(b"")
    (photos / "red/99.png").write_bytes(b"no picture")
    code, rows, (out, error) = predict(photos, "--proba", "--batch", 5)
    assert code == 1
    bad = [row for row in rows if row["error"]]
    assert [row["path"] for row in bad] == [f"{photos}/blue/03.png", f"{photos}/red/99.png"]
    assert bad[0]["error"] == "is empty"
    assert {row[name] for row in bad for name in ("label", "probability", "p_red")} == {""}
    assert sum(row["label"] == "red" for row in rows) == 8
    assert out.startswith("17 images: 15 labelled, 2 bad (")
    assert error.startswith("error: 2 of 17 files cannot be read; the column error has")
    assert predict(photos, "--skip-bad")[0] == 0


def test_only_bad_files(predict, tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    code, rows, _ = predict(tmp_path / "1.png")
    assert code == 1
    assert [row["error"] for row in rows] == ["is empty"]


def test_files_and_patterns(predict, photos):
    file = photos / "red/01.png"
    _, rows, _ = predict(file, photos / "*/0[12].png", file)
    names = [os.path.relpath(row["path"], photos) for row in rows]
    assert names == ["red/01.png", "blue/01.png", "blue/02.png", "red/02.png"]
    _, rows, _ = predict(photos / "**/07.png")
    assert [row["label"] for row in rows] == ["blue", "red"]
    _, rows, _ = predict(photos / "r*")  # a folder
    assert [row["label"] for row in rows] == ["red"] * 8
    assert len(predict(photos.parent / "**")[1]) == 17  # with out.csv, which is no image


def test_names_with_special_characters(predict, photos, picture):
    names = ['a,"b".png', "line\nbreak.png", "[1].png", "Ünï.png"]
    for seed, name in enumerate(names):
        picture(photos / "odd" / name, "red", seed)
    odd = os.fsencode(photos / "odd") + b"/\xff.png"
    try:
        os.rename(os.fsencode(photos / "odd" / names[3]), odd)
    except OSError:  # a file system of Unicode names
        odd = os.fsencode(photos / "odd" / names[3])
    code, rows, _ = predict(photos / "odd", photos / "odd/[1].png")
    assert code == 0
    expected = {os.fsencode(photos / "odd" / name) for name in names[:3]} | {odd}
    assert {os.fsencode(row["path"]) for row in rows} == expected
    assert [row["label"] for row in rows] == ["red"] * 4


def test_standard_output_has_only_rows(model, photos, capsys):
    assert main(["predict", str(model), str(photos / "red")]) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "path,label,probability,error"
    assert len(lines) == 9
    assert lines[1].startswith(f"{photos / 'red/00.png'},red,0.")
    assert error.startswith("8 images: 8 labelled (")
    assert not sys.stdout.closed


@pytest.mark.slow  # exporting takes seconds
def test_onnx_models(predict, photos, model, tmp_path):
    file = tmp_path / "model.onnx"
    export_onnx(load(model), file)
    code, rows, _ = predict(photos, "--proba", model=file)
    assert code == 0
    numbers = [[float(row["p_blue"]), float(row["p_red"])] for row in rows]
    expected = OnnxClassifier(file).predict_proba([row["path"] for row in rows])
    assert np.allclose(numbers, expected, atol=1e-6)
    assert [row["label"] for row in rows] == ["blue"] * 8 + ["red"] * 8


@pytest.mark.parametrize("name", ["missing", "*.gif"])
def test_arguments_without_files(predict, photos, name):
    code, rows, (_, error) = predict(photos / name)
    assert (code, rows) == (1, [])
    assert error.startswith("error: ")
    assert name in error


def test_folders_without_images(predict, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, (_, error) = predict(tmp_path / "empty")
    assert code == 1
    assert error.startswith(f"error: no images in {str(tmp_path / 'empty')!r}: ")


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_files_that_are_no_models(predict, photos, tmp_path, suffix):
    file = tmp_path / f"text{suffix}"
    file.write_text("hello")
    code, rows, (_, error) = predict(photos, model=file)
    assert (code, rows) == (1, [])
    assert error.startswith(f"error: {file} ")


def test_an_interruption_leaves_the_earlier_table(tmp_path, capsys):
    file = tmp_path / "out.csv"
    file.write_text("earlier")

    def write():
        with open_table(file) as table:
            table.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert capsys.readouterr().err == f"The rows written so far are in {file}.part.\n"
    assert file.read_text() == "earlier"
    assert (tmp_path / "out.csv.part").read_text() == "new"


def test_tables_replace_files_as_models_do(tmp_path):
    """A link stays, and the file that it names keeps its permissions."""
    (tmp_path / "table.csv").write_text("earlier")
    (tmp_path / "table.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("table.csv")
    with open_table(tmp_path / "link.csv") as table:
        table.write("new")
        assert (tmp_path / "table.csv").read_text() == "earlier"
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text() == "new"
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.csv", "table.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_is_an_error(model, photos, capsys):
    assert main(["predict", str(model), str(photos), "--csv", "/dev/full"]) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"
