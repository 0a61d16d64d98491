"""Peak resident memory of fit and predict on many image files.

    python -m benchmarks.memory [--images 50000]

Draws the files into a temporary folder (64x64 JPEGs of gradients), then imports, fits for one
epoch and predicts all in a process of its own, and reports the peak after each. Needs a Unix.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
N_CLASSES = 10


def draw(folder, n_images, size=64):
    """Draw gradients whose direction is the class."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    for i in range(n_images):
        angle = i % N_CLASSES / N_CLASSES * np.pi
        ramp = np.cos(angle) * axis[:, None] + np.sin(angle) * axis
        pixels = 128 + 60 * ramp[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg")


def work(folder):
    """Import, fit and predict; print [what, seconds, peak in GB so far] of each, as JSON."""
    start = time.perf_counter()

    def report(what):
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        print(json.dumps([what, time.perf_counter() - start, peak]), flush=True)
        return time.perf_counter()

    from sklearn_rrr import RRRNetClassifier

    start = report("import")
    paths = sorted(folder.glob("*.jpg"))
    y = np.arange(len(paths)) % N_CLASSES
    clf = RRRNetClassifier(weights=None, max_epochs=1, random_state=0).fit(paths, y)
    start = report("fit, one epoch")
    clf.predict(paths)
    report("predict")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), arguments.images)
        command = [sys.executable, "-m", "benchmarks.memory", "--work", folder]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = [
        f"| {arguments.images} JPEG files of 64x64 | seconds | peak resident so far, GB |",
        "|---|---|---|",
    ]
    for what, seconds, peak in map(json.loads, run.stdout.splitlines()):
        lines.append(f"| {what} | {seconds:.0f} | {peak:.2f} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
