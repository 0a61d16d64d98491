"""Resident memory of fit and predict on many image files.

    python -m benchmarks.memory [--images 50000]

Draws the files into a temporary folder (small JPEGs of random gradients), fits for one
epoch in a process of its own, predicts all, and reports the peaks.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

RESULTS = Path(__file__).parent / "results"
N_CLASSES = 10


def draw(folder, n_images, size=64):
    """Draw gradients whose direction is the class; return nothing."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    for i in range(n_images):
        angle = i % N_CLASSES / N_CLASSES * np.pi
        ramp = np.cos(angle) * axis[:, None] + np.sin(angle) * axis
        pixels = 128 + 60 * ramp[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg")


def work(folder):
    """Fit and predict; print the seconds of each, as JSON."""
    from sklearn_rrr import RRRNetClassifier

    paths = sorted(folder.glob("*.jpg"))
    y = np.arange(len(paths)) % N_CLASSES
    start = time.perf_counter()
    clf = RRRNetClassifier(weights=None, max_epochs=1, random_state=0).fit(paths, y)
    fitted = time.perf_counter()
    print(json.dumps({"event": "fit", "seconds": fitted - start}), flush=True)
    accuracy = clf.score(paths, y)
    seconds = time.perf_counter() - fitted
    print(json.dumps({"event": "predict", "seconds": seconds, "accuracy": accuracy}), flush=True)


def watch(folder, interval=0.2):
    """Run `work` in its own process and return {event: (seconds, peak in GB)}."""
    command = [sys.executable, "-m", "benchmarks.memory", "--work", str(folder)]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        handle, events, peak = psutil.Process(process.pid), {}, 0
        while process.poll() is None:
            try:
                peak = max(peak, handle.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            output.seek(0)
            lines = output.read().splitlines()
            if len(lines) > len(events):
                event = json.loads(lines[len(events)])
                events[event.pop("event")] = {**event, "peak_gb": peak / 1e9}
                peak = 0
            time.sleep(interval)
        if process.wait():
            raise RuntimeError(f"the measured process ended with {process.returncode}")
        output.seek(0)
        for line in output.read().splitlines()[len(events) :]:
            event = json.loads(line)
            events[event.pop("event")] = {**event, "peak_gb": peak / 1e9}
    return events


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
        events = watch(folder)
    lines = [
        f"| {arguments.images} JPEG files of 64x64 | seconds | peak resident, GB |",
        "|---|---|---|",
    ]
    for name, event in events.items():
        what = "fit, one epoch" if name == "fit" else "predict"
        lines.append(f"| {what} | {event['seconds']:.0f} | {event['peak_gb']:.2f} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
