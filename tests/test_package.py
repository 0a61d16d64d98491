"""The house: public names, who imports whom, what the wheel holds."""

import ast
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from numpydoc.validate import validate

import sklearn_rrr
from sklearn_rrr import plotting
from sklearn_rrr.weights import BUNDLED

PACKAGE = Path(sklearn_rrr.__file__).parent
# A module imports only from rows above its own.
ORDER = [
    {"_validation", "_version", "inference", "memory", "products", "uncertainty"},
    {"augmentation", "backbones", "branching", "costs", "exclusion", "heads", "images", "labels"}
    | {"onnx_classifier"}
    | {"synthesis"},
    {"batches", "factors", "network", "weights"},
    {"checkpoints", "devices", "surgery", "tailoring"},
    {"meta", "importance", "relevance", "training"},
    {"ensembling", "predicting"},
    {"base"},
    {"classifier"},
    {"baselines", "block_search", "pruning"},
    {"block_selection", "nettailor", "block_pruning", "channel_pruning", "element_pruning"},
    {"basis_scaling", "kernel_pruning"},
    {"persistence", "plotting"},
    {"tasks"},
]
WITHIN_IMAGES = [
    {"brightness", "layout"},
    {"decoding"},
    {"forms", "folders"},
    {"sources"},
    {"inspection"},
]
WITHIN_SYNTHESIS = [
    {"canvas", "fonts"},
    {"textures", "glyphs"},
    {"contours", "fractals"},
    {"images"},
]
WITHIN_PLOTTING = [{"display"}, {"agreement", "blocks", "costs", "kernels"}]
WITHIN_PLOTTING[1] |= {"reliability", "training"}


def test_public_names():
    assert sklearn_rrr.__all__ == [
        "BaggingEnsemble",
        "BasisScalingPruner",
        "BlockPruner",
        "BlockSelector",
        "ChannelPruner",
        "ElementPruner",
        "EnsembleStrategy",
        "FastGeometricEnsemble",
        "FineTuningClassifier",
        "LastLayerClassifier",
        "MultiTaskStore",
        "NaiveEnsemble",
        "NetTailorClassifier",
        "OnnxClassifier",
        "ProgressiveKernelPruner",
        "RRRNetClassifier",
        "SnapshotEnsemble",
        "cost_report",
        "count_macs",
        "count_parameters",
        "export_onnx",
        "list_backbones",
        "load",
        "load_backbone",
        "load_image_folder",
        "load_task",
        "measure_latency",
        "register_backbone",
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
METHODS += ["tasks.load_task", "tasks.save_task"]
METHODS += ["ProgressiveKernelPruner.fit"]
METHODS += ["OnnxClassifier." + m for m in ("fit", "predict", "predict_branches", "predict_proba")]
METHODS += ["OnnxClassifier.predict_uncertainty"]
DRAWN = ["synthesis.SyntheticImages", "synthesis.find_fonts", "baselines.paper_models"]
DRAWN += [f"plotting.{name}" for name in plotting.__all__]


@pytest.mark.parametrize("name", [*sklearn_rrr.__all__, *METHODS, *DRAWN])
def test_public_docstrings_are_numpydoc(name):
    checks = CHECKS - {"EX01"} if name in METHODS else CHECKS
    errors = validate(f"sklearn_rrr.{name}")["errors"]
    assert [error for error in errors if error[0] in checks] == []


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


@pytest.mark.parametrize(
    ("room", "order"),
    [
        ("", ORDER),
        ("images", WITHIN_IMAGES),
        ("synthesis", WITHIN_SYNTHESIS),
        ("plotting", WITHIN_PLOTTING),
    ],
)
def test_modules_import_only_from_above(room, order):
    folder = PACKAGE / room
    files = {p.stem: p for p in folder.glob("*.py") if p.stem != "__init__"}
    files |= {p.parent.name: p for p in folder.glob("*/__init__.py")}
    outside, level = ({n: i for i, row in enumerate(o) for n in row} for o in (ORDER, order))
    assert set(files) == set(level)
    for name, path in files.items():
        if path.name == "__init__.py":
            continue
        for imported in imports(path):
            first, *rest = imported.split(".")
            if not room:
                above = level[first] < level[name]
            elif first == room:
                above = level[rest[0]] < level[name]
            else:
                above = outside[first] < outside[room]
            assert above, f"{name} imports {imported}"


def test_pretrained_holds_only_data():
    assert {p.suffix for p in (PACKAGE / "pretrained").iterdir()} == {".safetensors"}


def test_only_training_knows_skorch():
    users = [p.name for p in PACKAGE.rglob("*.py") if "skorch" in ast.unparse(_imports(p))]
    assert users == ["training.py"]


def _imports(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    kept = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return ast.Module(body=kept, type_ignores=[])


def test_no_global_threads():
    assert not [p for p in PACKAGE.rglob("*.py") if "set_num_threads(" in p.read_text()]


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
        content = archive.read(f"sklearn_rrr/pretrained/{file}")
        assert hashlib.sha256(content).hexdigest() == digest
    assert not [name for name in held if name.startswith(("tests", "benchmarks", "examples"))]
