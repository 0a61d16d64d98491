"""
=====================================
Files for prediction, and their speed
=====================================

A fitted classifier can be saved for scikit-learn, or exported to a file that predicts without
torch. All files give the same probabilities; they differ in size and in the latency of an image.
"""

# %%
# The same network is saved in three ways, and the exported file is run by two engines.

import tempfile
import time
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx, load, save

X, y = load_digits(return_X_y=True)
X = (X.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
clf = RRRNetClassifier(fine_tuning="one_pass", image_size=96, random_state=0).fit(X[:300], y[:300])

folder = tempfile.TemporaryDirectory()
endings = ("joblib", "safetensors", "onnx")
pickle, tensors, onnx = (Path(folder.name, f"digits.{ending}") for ending in endings)
joblib.dump(clf, pickle)
save(clf, tensors)
export_onnx(clf, onnx)
models = {
    "joblib.dump": joblib.load(pickle),
    "save": load(tensors),
    "export_onnx,\nONNX Runtime": OnnxClassifier(onnx),
    "export_onnx,\nOpenVINO": OnnxClassifier(onnx, engine="openvino"),
}
sizes = [path.stat().st_size / 1e6 for path in (pickle, tensors, onnx, onnx)]

# %%
# All give the probabilities of the fitted classifier.

expected = clf.predict_proba(X[300:400])
for name, model in models.items():
    distance = abs(model.predict_proba(X[300:400]) - expected).max()
    print(f"{name.split(chr(10))[-1]}: largest difference {distance:.0e}")

# %%
# The median of repeated predictions is robust against other work of the machine.


def measure(model, images, repeats=20):
    """Return the median time of a prediction in ms per image."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.predict_proba(images)
        seconds.append(time.perf_counter() - start)
    return 1000 * np.median(seconds) / len(images)


panels = {
    "size of the file in MB": sizes,
    "one image, ms": [measure(model, X[:1]) for model in models.values()],
    "64 images, ms per image": [measure(model, X[:64], 3) for model in models.values()],
}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    bars = ax.barh(list(models), values, color=["C0", "C0", "C1", "C1"])
    ax.bar_label(bars, fmt="%.1f", padding=3)
    ax.set(title=title, xlim=(0, 1.2 * max(values)))
axes[0].invert_yaxis()
folder.cleanup()
plt.show()
