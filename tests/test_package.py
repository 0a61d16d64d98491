"""The house: public names, who imports whom, what the wheel holds."""

import ast
import csv
import graphlib
import hashlib
import inspect
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from numpydoc.validate import validate

import sklearn_rrr
from sklearn_rrr import plotting
from sklearn_rrr.backbones.weights import BUNDLED

PACKAGE = Path(sklearn_rrr.__file__).parent
ROOMS = PACKAGE.parent / "docs" / "rooms.csv"  # the table of docs/design.rst


def test_public_names():
    assert sklearn_rrr.__all__ == [
        "Backbone",
        "BackboneFeatures",
        "BaggingEnsemble",
        "BasisScalingPruner",
        "BlockPruner",
        "BlockSelector",
        "ChannelPruner",
        "ElementPruner",
        "EnsembleStrategy",
        "FastGeometricEnsemble",
        "FineTuning",
        "FineTuningClassifier",
        "LastLayerClassifier",
        "MultiTaskStore",
        "NaiveEnsemble",
        "NetTailorClassifier",
        "OnnxClassifier",
        "ProgressiveKernelPruner",
        "RRRNetClassifier",
        "SnapshotEnsemble",
        "TailoringFineTuning",
        "cost_report",
        "count_macs",
        "count_parameters",
        "export_onnx",
        "list_backbones",
        "load",
        "load_backbone",
        "load_image_folder",
        "load_task",
        "make_mobilenet",
        "make_resnet",
        "measure_latency",
        "paper_models",
        "register_backbone",
        "report_images",
        "save",
        "save_task",
    ]
    assert all(hasattr(sklearn_rrr, name) for name in sklearn_rrr.__all__)


CHECKS = {"GL03", "GL06", "GL07", "SS01", "SS03", "SS04", "SS05", "PR01", "PR02", "PR03"}
CHECKS |= {"PR04", "PR06", "PR07", "RT01", "RT03", "EX01"}
METHODS = ["RRRNetClassifier." + m for m in ("fit", "partial_fit", "predict", "predict_proba")]
METHODS += ["RRRNetClassifier.predict_branches", "RRRNetClassifier.predict_uncertainty"]
METHODS += ["BlockSelector." + m for m in ("fit", "predict", "predict_proba", "score")]
METHODS += ["NetTailorClassifier." + m for m in ("fit", "predict", "predict_proba")]
METHODS += ["MultiTaskStore." + m for m in ("add", "load", "sizes")]
METHODS += ["deployment.task_files.load_task", "deployment.task_files.save_task"]
METHODS += ["ProgressiveKernelPruner.fit"]
METHODS += ["OnnxClassifier." + m for m in ("fit", "predict", "predict_branches", "predict_proba")]
METHODS += ["OnnxClassifier.predict_uncertainty"]
DRAWN = ["classifiers.baselines.paper_models"]
DRAWN += [f"plotting.{name}" for name in plotting.__all__]


@pytest.mark.parametrize("name", [*sklearn_rrr.__all__, *METHODS, *DRAWN])
def test_public_docstrings_are_numpydoc(name):
    checks = CHECKS - {"EX01"} if name in METHODS else CHECKS
    if is_dataclass(getattr(sklearn_rrr, name.partition(".")[0])):
        checks = checks - {"PR03"}  # keywords, documented by importance: base's come first
    errors = validate(f"sklearn_rrr.{name}")["errors"]
    assert [error for error in errors if error[0] in checks] == []


def read_rooms():
    """Return the rooms that each room may import, itself left out."""
    with ROOMS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = {row["room"].strip("`"): re.findall(r"\w+", row["may import"]) for row in rows}
    allowed = {}
    for room, direct in named.items():  # what stands above, and above that
        allowed[room] = set(direct).union(*(allowed[name] for name in direct))
    return allowed


def imports(path):
    """Return the modules of the package that a file imports, without the package's name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if is_module(name)] or [node.module]
        names |= {m.split(".", 1)[1] for m in modules if m.startswith("sklearn_rrr.")}
    return names


def is_module(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def list_modules():
    """Return the files of the rooms by their names, such as networks.rrr_net."""
    paths = [p for p in PACKAGE.rglob("*.py") if p.stem != "__init__"]
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in paths}


def test_rooms_import_only_what_stands_above():
    allowed, free = read_rooms(), {"_version"}
    assert {name.split(".")[0] for name in list_modules()} - free == set(allowed)
    for name, path in list_modules().items():
        room = name.split(".")[0]
        for imported in imports(path):
            other = imported.split(".")[0]
            assert other in allowed.get(room, set()) | {room} | free, f"{name} imports {imported}"


def test_house_has_at_most_eight_floors():
    floors = {}
    for room, above in read_rooms().items():
        floors[room] = 1 + max((floors[name] for name in above), default=0)
    assert max(floors.values()) <= 8


def test_files_do_not_import_each_other_in_a_circle():
    tree = {name: imports(path) & list_modules().keys() for name, path in list_modules().items()}
    assert list(graphlib.TopologicalSorter(tree).static_order())  # raises CycleError


def test_pretrained_holds_only_data():
    assert {p.suffix for p in (PACKAGE / "backbones" / "pretrained").iterdir()} == {".safetensors"}


def test_only_training_knows_skorch():
    users = {p.parent.name for p in PACKAGE.rglob("*.py") if "skorch" in ast.unparse(_imports(p))}
    assert users == {"training"}


def _imports(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    kept = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return ast.Module(body=kept, type_ignores=[])


def test_no_global_threads():
    """Except in a forked process, where OpenMP's threads are gone."""
    users = [p for p in PACKAGE.rglob("*.py") if "set_num_threads(" in p.read_text()]
    assert users == [PACKAGE / "_surroundings.py"]


def test_import_is_quiet_and_draws_nothing():
    code = (
        "import torch, numpy as np; torch.manual_seed(0); np.random.seed(0);"
        "from sklearn_rrr import *; print(torch.rand(1).item(), np.random.rand())"
    )
    plain = code.replace("from sklearn_rrr import *;", "")
    runs = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True)
        for c in (code, plain)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stderr == ""


def test_import_leaves_out_what_only_some_fits_need():
    """torchvision and the compiler of torch would take a second and a half."""
    code = "import sys; from sklearn_rrr import *;"
    code += "print({'torchvision', 'torch._dynamo'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.slow
def test_wheel_holds_every_module_and_the_bundled_weights(tmp_path):
    root = PACKAGE.parent
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, root],
        check=True,
        env=environment,
    )
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    held = set(archive.namelist())
    expected = {p.relative_to(root).as_posix() for p in PACKAGE.rglob("*.py")}
    assert expected <= held
    for file, digest in BUNDLED.values():
        content = archive.read(f"sklearn_rrr/backbones/pretrained/{file}")
        assert hashlib.sha256(content).hexdigest() == digest
    assert not [name for name in held if name.startswith(("tests", "benchmarks", "examples"))]


def test_files_and_functions_are_short():
    """450 lines a file, 50 a function without its docstring; constructors may be longer."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                first = node.body[bool(ast.get_docstring(node)) :] or node.body
                assert node.end_lineno - first[0].lineno < 50, (path, node.name)


def test_an_estimator_has_few_parameters():
    assert len(inspect.signature(sklearn_rrr.RRRNetClassifier).parameters) <= 22
