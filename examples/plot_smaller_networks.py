"""
================
Smaller networks
================

A network fitted on digits is pruned in three ways: by basis vectors of its convolutions, by
channels, and by both in succession, which trains for twice as long. The first plot shows test
accuracy against the remaining parameters, the second the responses of the first layer's kernels.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklearn_rrr import BasisScalingPruner, ChannelPruner, RRRNetClassifier, cost_report
from sklearn_rrr.plotting import KernelMosaicDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=200, stratify=y, random_state=0
)
clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), image_size=32, max_epochs=10, random_state=0)
clf.fit(X_train, y_train)

# With FrozenEstimator, each pruner starts from the fitted network instead of refitting it. No score
# decides anything here, so no images are held out and all are used for training.
common = {"estimator": FrozenEstimator(clf), "validation_fraction": None, "n_steps": 2}
common |= {"epochs_per_step": 2, "random_state": 0}
ways = {
    "basis vectors": lambda share: BasisScalingPruner(target=share, **common),
    "channels": lambda share: ChannelPruner(target=share, **common),
    "basis vectors, then channels": lambda share: BasisScalingPruner(
        target=share / 2,
        then=ChannelPruner(target=share / (2 - share), n_steps=2, epochs_per_step=2),
        **common,
    ),
}
models, rows = {"fitted": clf}, {"fitted": ("", clf.score(X_test, y_test))}
for way, make in ways.items():
    for share in (0.6, 0.8):
        pruner = make(share).fit(X_train, y_train)
        name = f"{way}, {share:.0%}"
        models[name], rows[name] = pruner.estimator_, (way, pruner.score(X_test, y_test))
report = cost_report(models, batch_sizes=(1,))
report[["way", "accuracy"]] = list(rows.values())
print(report.drop(columns="way").round(3).to_string())

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
start = report.loc["fitted"]
left.axhline(start.accuracy, color="k", linestyle=":", label="before")
for way in ways:
    part = report[report.way == way]
    left.plot(part.n_parameters / start.n_parameters, part.accuracy, "o-", label=way)
left.set(xlabel="parameters left", ylabel="accuracy on test images", title="three ways")
left.legend()
KernelMosaicDisplay.from_estimator(clf, X_test[:16], "stump.0", ax=right)
right.set_title("what the kernels of the first layer respond to", pad=12)
plt.show()
