"""The page with accuracy, errors and bad files."""

import base64
import io
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from sklearn_rrr.__main__ import main
from sklearn_rrr.command_line import report as command


class Page(HTMLParser):
    """The texts, tags and sources of a page; fails on tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.sources, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def report(network, tmp_path, capsys):
    """Return a function that runs `report` and returns its exit code, Page and messages."""

    def run(folder, *options):
        file = tmp_path / "report.html"
        code = main(["report", str(folder), "--html", str(file), *network, *map(str, options)])
        page = Page(file.read_text(encoding="utf-8")) if file.exists() else None
        return code, page, capsys.readouterr()

    return run


@pytest.fixture
def wrong(split_photos, picture):
    """Splits whose test images have one wrong label."""
    picture(split_photos / "test/blue/wrong.png", "red", 0)
    return split_photos


def test_page_of_a_cross_validation(report, photos):
    code, page, (out, _) = report(photos, "--cv", 2)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("16 images of 2 classes (8 each)")
    assert lines[1] == "Accuracy: 1.000 (16 of 16; 95% interval 0.806 to 1.000)"
    assert lines[2] == "Balanced accuracy: 1.000"
    text = "".join(page.texts)
    assert "2-fold cross-validation of 16 images." in text
    assert "100.0%95% interval 80.6% to 100.0%" in text
    assert "red8100.0%100.0%100.0%–" in text  # a row of the table of classes
    assert "There are no errors." in text
    assert "sklearn_rrr " in text
    assert "random_state=0" in text


def test_errors_are_shown(report, wrong):
    code, page, (out, _) = report(wrong, "--splits")
    assert code == 0
    assert "Accuracy: 0.857 (6 of 7;" in out
    text = "".join(page.texts)
    assert "blue475.0%100.0%85.7%red (1)" in text
    assert "1 of 1 errors" in text
    assert "true: blue 0." in text
    assert "predicted: red 0." in text
    assert "test/blue/wrong.png" in text


def test_page_needs_nothing_else(report, wrong):
    _, page, _ = report(wrong, "--splits")
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    (source,) = page.sources
    kind, data = source.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (24, 24)
    assert "url(" not in "".join(page.texts)


def test_pictures_of_errors_can_be_left_out(report, wrong):
    _, page, _ = report(wrong, "--splits", "--worst", 0)
    assert page.sources == []


def test_names_are_escaped(report, split_photos, picture):
    for split in ("train", "test"):
        shutil.move(split_photos / split / "red", split_photos / split / "<script>&\"'")
    names = [b"<img onerror=x>.png"]
    if sys.platform == "linux":  # other systems refuse such names
        names.append(b"\xff.png")
    for seed, name in enumerate(names):
        picture(split_photos / "test/blue/new.png", "red", seed)
        folder = os.fsencode(split_photos / "test/blue")
        os.rename(folder + b"/new.png", folder + b"/" + name)
    code, page, _ = report(split_photos, "--splits")
    assert code == 0
    assert "script" not in page.tags
    assert page.tags.count("img") == len(names)
    text = "".join(page.texts)
    assert "predicted: <script>&\"' 0." in text
    assert "blue/<img onerror=x>.png" in text


def test_bad_files_and_duplicates_are_listed(report, photos):
    (photos / "red/bad.png").write_bytes(b"")
    shutil.copy(photos / "red/00.png", photos / "blue/copy.png")
    code, page, (out, _) = report(photos, "--cv", 2)
    assert code == 0
    assert "1 bad file, 1 group of duplicates, 1 of them across labels" in out
    text = "".join(page.texts)
    assert "1 group of identical files has different labels" in text
    assert "1 file cannot be read and was left out." in text
    assert f"{photos}/red/bad.pngis empty" in text
    assert "2-fold cross-validation of 17 images." in text


def test_splits_are_tested(report, split_photos):
    shutil.copy(split_photos / "train/red/00.png", split_photos / "test/red/copy.png")
    code, page, _ = report(split_photos, "--splits")
    assert code == 0
    text = "".join(page.texts)
    assert "Fitted to 12 images, tested on 7 images of test." in text
    assert "1 group of identical files lies in several splits" in text
    assert "There are no errors." in text


def test_classes_without_training_images_are_errors(report, split_photos, picture):
    picture(split_photos / "test/green/0.png", "red", 0)
    code, page, (out, _) = report(split_photos, "--splits")
    assert code == 0
    assert "Accuracy: 0.857 (6 of 7;" in out
    assert "true: green 0.000" in "".join(page.texts)


def test_groups_are_kept_together(report, photos, tmp_path):
    for group in range(3):
        for colour in ("blue", "red"):
            for i in range(2):
                target = tmp_path / f"grouped/day{group}/{colour}/{i}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(photos / f"{colour}/{2 * group + i:02}.png", target)
    code, page, _ = report(tmp_path / "grouped", "--level", 2, "--groups", 1, "--cv", 3)
    assert code == 0
    assert "of 12 images, with 3 groups kept together." in "".join(page.texts)
    code, _, (_, error) = report(tmp_path / "grouped", "--level", 2, "--groups", 1)
    assert code == 1
    assert "error: --cv 5 is more than the number of groups, 3." in error
    assert report(tmp_path / "grouped", "--level", 2, "--groups", 3)[0] == 1


def test_folds_in_processes_give_the_same_page(report, photos, picture, one_thread, monkeypatch):
    for seed in range(3):
        picture(photos / f"blue/wrong{seed}.png", "red", seed)
    here = report(photos, "--cv", 2)
    monkeypatch.setattr(command, "predict_chunks", None)  # only other processes predict
    there = report(photos, "--cv", 2, "--jobs", 2)
    assert there[0] == here[0] == 0
    pages = ["".join(page.texts).split("Settings")[0] for _, page, _ in (here, there)]
    assert pages[0] == pages[1]
    assert "true: blue 0." in pages[0]  # probabilities of errors
    assert there[2].out == here[2].out
    assert there[2].err == here[2].err


def test_errors_of_processes_are_one_line(report, photos):
    code, page, (_, error) = report(photos, "--cv", 2, "--jobs", 2, "--blocks", 1, 1, 1, 9)
    assert (code, page) == (1, None)
    assert error.splitlines()[-1].startswith("error: --blocks must be 4 ints from (1, 1, 1, 1) to")


def test_many_classes_give_a_list_of_confusions(report, tmp_path, picture):
    for i in range(41):
        for j in range(4):
            picture(tmp_path / f"many/class{i:02}/{j}.png", "red", [i, j])
    code, page, _ = report(tmp_path / "many", "--cv", 2, "--worst", 0)
    assert code == 0
    assert "Most frequent confusions" in page.texts
    assert "Confusion matrix" not in page.texts


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--splits", "--cv", 3], 2, "--cv, --groups and --jobs cannot be used with --splits."),
        (["--cv", 20], 1, "--cv 20 is more than the number of images in the largest class, 8."),
        (["--splits", "--jobs", 2], 2, "--cv, --groups and --jobs cannot be used with --splits."),
        (["--groups", 2], 1, "--groups 2: blue/00.png does not lie in a folder at this depth."),
    ],
)
def test_wrong_options(report, photos, options, code, message):
    found, page, (_, error) = report(photos, *options)
    assert (found, page) == (code, None)
    assert error.endswith(f"error: {message}\n")


def test_classes_of_one_image(report, photos, picture):
    picture(photos / "green/0.png", "red", 0)
    code, _, (_, error) = report(photos)
    assert code == 1
    assert "the class 'green' has 1 image, but cross-validation needs 2 of each" in error


@pytest.mark.slow
def test_the_whole_way_in_processes(photos, network, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "sklearn_rrr", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    run("report", "photos", "--html", "report.html", "--cv", "2", *network)
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (
        "Saved model.safetensors"
        in run("fit", "photos", "--out", "model.safetensors", *network).stdout
    )
    table = run("predict", "model.safetensors", "photos").stdout.splitlines()
    assert [line.split(",")[1] for line in table] == ["label", *["blue"] * 8, *["red"] * 8]
