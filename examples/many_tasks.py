"""
===========================
Ten tasks on one backbone
===========================

Recognising one digit among the others is one task, so there are ten. NetTailor keeps the backbone's
weights and adds lean proxies, so that each task is a small file and all share one backbone file.
"""

import tempfile

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_rrr import MultiTaskStore, NetTailorClassifier, count_parameters

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=300, stratify=y, random_state=0
)

rows = {}
with tempfile.TemporaryDirectory() as folder:
    store = MultiTaskStore(folder, backbone="synth50")
    for digit in range(10):
        # `n_removed` is a single number, so no sweep and no hold-out images are needed.
        clf = NetTailorClassifier(
            "synth50", n_removed=8, max_epochs=8, image_size=32, validation_fraction=None,
            class_weight="balanced", random_state=0,
        )  # fmt: skip
        clf.fit(X_train, y_train == digit)
        store.add(f"is-{digit}", clf)
        rows[f"is-{digit}"] = {
            "parameters": count_parameters(clf),
            "of its own": sum(t.numel() for t in clf.task_delta_.values()),
        }
    table = pd.DataFrame(rows).T
    table["accuracy"] = [
        store.load(f"is-{digit}").score(X_test, y_test == digit) for digit in range(10)
    ]
    print(table.join(store.sizes()).round(3).to_string())
    sizes = store.sizes()
    print(f"backbone {sizes['backbone']:.1f} MB, ten tasks {sizes[1:].sum():.1f} MB")
