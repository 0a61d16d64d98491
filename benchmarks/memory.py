"""Time and peak resident memory of fit and predict against the number of image files.

    python -m benchmarks.memory [--images 400 4000 40000]

Writes the files to a temporary folder (64x64 JPEGs of gradients). For each number of files, a new
process imports the package, fits for one epoch and predicts all images, and reports the peak after
each step. Requires Unix.
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
    """Write images of gradients whose direction encodes the class."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    for i in range(n_images):
        angle = i % N_CLASSES / N_CLASSES * np.pi
        ramp = np.cos(angle) * axis[:, None] + np.sin(angle) * axis
        pixels = 128 + 60 * ramp[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg")


def work(folder, n_images):
    """Import, fit and predict; print [step, seconds, peak in GB so far] of each as JSON."""
    start = time.perf_counter()

    def report(what):
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        print(json.dumps([what, time.perf_counter() - start, peak]), flush=True)
        return time.perf_counter()

    from sklearn_rrr import RRRNetClassifier

    start = report("import")
    paths = sorted(folder.glob("*.jpg"))[:n_images]
    y = np.arange(len(paths)) % N_CLASSES
    clf = RRRNetClassifier(weights=None, max_epochs=1, random_state=0).fit(paths, y)
    start = report("fit, one epoch")
    clf.predict(paths)
    report("predict")


def measure(folder, n_images):
    """Return [step, seconds, peak in GB so far] for each step of a process with `n_images`."""
    command = [sys.executable, "-m", "benchmarks.memory", "--work", folder]
    command += ["--images", str(n_images)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[400, 4000, 40_000])
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, *arguments.images)
        return
    lines = [
        "JPEG files of 64x64; a process for each number of them.",
        "",
        "| images | what | seconds | ms an image | peak resident so far, GB |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), max(arguments.images))
        for n in arguments.images:
            for what, seconds, peak in measure(folder, n):
                each = "" if what == "import" else f"{1000 * seconds / n:.2f}"
                lines.append(f"| {n} | {what} | {seconds:.1f} | {each} | {peak:.2f} |")
                print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
