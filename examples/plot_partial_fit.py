"""
===================================
Learning from images as they arrive
===================================

Images often arrive day by day. ``partial_fit`` continues the training of a network with each new
batch. The default, which solves its head in closed form, is so fast that it can be fitted again on
all images instead.
"""

# %%
# Eight batches of 40 digits arrive, one after the other. The accuracy on other digits is measured
# after each batch.

import time

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X / 16, y, train_size=320, test_size=300, stratify=y, random_state=0
)
ends = range(40, 321, 40)

# %%
# The labels of all classes must be known at the first call. Each batch is shown three times.

trained = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), image_size=32, random_state=0)
again = RRRNetClassifier(fine_tuning="one_pass", image_size=48, random_state=0)
scores = {"partial_fit on the new batch": [], "fit on all images so far": []}
seconds = {name: [] for name in scores}
for end in ends:
    start = time.perf_counter()
    for _ in range(3):
        trained.partial_fit(X[end - 40 : end], y[end - 40 : end], classes=range(10))
    middle = time.perf_counter()
    again.fit(X[:end], y[:end])
    times = middle - start, time.perf_counter() - middle
    for name, clf, duration in zip(scores, (trained, again), times, strict=True):
        scores[name].append(clf.score(X_test, y_test))
        seconds[name].append(duration)

# %%
# Which way is better depends on the images and their number; the second one needs all of them.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3), layout="constrained")
for name in scores:
    left.plot(ends, scores[name], "o-", label=name)
    right.plot(ends, seconds[name], "o-", label=name)
left.set(xlabel="images so far", ylabel="accuracy on test images", ylim=(0, 1))
right.set(xlabel="images so far", ylabel="seconds per batch", ylim=(0, None))
left.legend()
plt.show()
