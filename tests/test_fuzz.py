"""Damaged files of every format that is read: refused by name, or read as before."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import io, json, pickle, resource, sys, time, warnings
from pathlib import Path
import numpy as np, torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn_rrr import *
torch.set_num_threads(1)
warnings.simplefilter("ignore")
folder, n = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
X, y = load_digits(n_class=3, return_X_y=True)
X, y = X.reshape(-1, 8, 8)[:32] / 16, y[:32]
form = {"image_size": 32, "max_epochs": 1, "random_state": 0}

@register_backbone("small")
def small():
    from sklearn_rrr.backbones.bottleneck import Bottleneck
    return make_resnet("small", Bottleneck, (1, 1, 1, 1), (4, 8, 8, 16), image_size=32)

backbone, _ = load_backbone("small", None)
weights = backbone.state_dict()
torch.save(weights, folder / "weights.pth")
clf = RRRNetClassifier("small", **form, weights=str(folder / "weights.pth"), n_branches=2)
clf.fit(X, y)
save(clf, folder / "model.safetensors")
export_onnx(clf, folder / "model.onnx")
tailored = NetTailorClassifier("small", **form, n_removed=1, weights=weights)
save_task(tailored.fit(X, y), folder / "task.safetensors")
picture = np.kron(rng.integers(0, 255, (12, 12, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
for suffix in ("jpg", "png", "gif", "bmp", "tiff", "webp", "ppm"):
    Image.fromarray(picture).save(folder / f"picture.{suffix}")
Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")

def read_picture(path):
    clf.predict_proba([str(path)])  # another picture may be a good one, too

def read_weights(path):
    backbone, _ = load_backbone("small", str(path))
    return np.concatenate([v.double().flatten() for v in backbone.state_dict().values()])

READERS = {
    "model.safetensors": lambda path: load(path).predict_proba(X[:2]),
    "model.onnx": lambda path: OnnxClassifier(path).predict_proba(
        (X[:2] * 255).astype(np.uint8)
    ),
    "task.safetensors": lambda path: load_task(path, weights).predict_proba(X[:2]),
    "weights.pth": read_weights,
}
READERS |= {p.name: read_picture for p in folder.iterdir() if p.stem in ("picture", "deep")}

def mutate(content):
    data, kind = bytearray(content), rng.integers(6)
    end = len(data) if rng.random() < 0.5 else min(400, len(data))  # headers are short
    place = int(rng.integers(end))
    length = int(rng.integers(1, 40))
    if kind == 0:
        data[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        data[place : place + length] = rng.bytes(min(length, len(data) - place))
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        del data[place : place + length]
    elif kind == 4:
        data[place:place] = rng.bytes(length)
    else:
        data[place : place + 8] = b"\\xff" * min(8, len(data) - place)
    return bytes(data)

for name, read in READERS.items():
    expected = read(folder / name)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, -1))
table = {}
for name, read in READERS.items():
    content, expected = (folder / name).read_bytes(), read(folder / name)
    counts = {"refused": 0, "as before": 0, "read": 0, "slowest": 0.0}
    target = folder / f"mutated-{name}"
    for i in range(n):
        target.write_bytes(mutated := mutate(content))
        began = time.perf_counter()
        try:
            found = read(target)
        except ValueError as error:
            assert name in str(error), (name, i, str(error))
            counts["refused"] += 1
        else:
            if expected is None:
                counts["read"] += 1
            else:
                assert np.array_equal(found, expected), (name, i)
                counts["as before"] += 1
        counts["slowest"] = max(counts["slowest"], time.perf_counter() - began)
    table[name] = counts
    print(name, counts, file=sys.stderr, flush=True)
print(json.dumps(table))
"""


@pytest.mark.slow
def test_mutations_of_every_format(tmp_path):  # faults 26, 56, 57, 76 and 77
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "400"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for name, counts in json.loads(done.stdout.splitlines()[-1]).items():
        assert counts["slowest"] < 30, name
        assert counts["refused"] > 0, name
