"""
==================================
Features for other tools: clusters
==================================

``BackboneFeatures`` turns images into rows of numbers, which any tool of scikit-learn accepts.
Here, K-means finds groups of photographs without labels, and a logistic regression needs only ten.
"""

# %%
# The photographs are parts of the two pictures that come with scikit-learn: a temple and a flower,
# each with its surroundings. Their labels are only used to judge the result.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from sklearn_rrr import BackboneFeatures

BOXES = {  # number of the picture; left, upper, right, lower
    "temple": (0, 90, 90, 330, 340),
    "sky": (0, 330, 0, 640, 190),
    "tree": (0, 330, 300, 640, 427),
    "flower": (1, 190, 90, 430, 350),
    "leaf": (1, 0, 0, 160, 427),
}
pictures, rng = load_sample_images().images, np.random.default_rng(0)
X, y = [], []
for name, (number, left, upper, right, lower) in BOXES.items():
    for _ in range(24):
        x, z = rng.integers(left, right - 48), rng.integers(upper, lower - 48)
        X.append(pictures[number][z : z + 48, x : x + 48])
        y.append(name)
X, y = np.array(X), np.array(y)

# %%
# ``levels="all"`` returns statistics of all blocks, from textures to objects, and ``levels="last"``
# only the last outputs. Rows of unit length make distances depend on the pattern of the features
# alone. The agreement of clusters and labels is 1 if they are equal, and 0 by chance.

last = make_pipeline(BackboneFeatures(levels="last", image_size=96), Normalizer())
every = make_pipeline(BackboneFeatures(levels="all", image_size=96), Normalizer())
pixels = FunctionTransformer(lambda X: X.reshape(len(X), -1) / 255)
clusters = {}
for name, transformer in {"pixels": pixels, "last level": last, "all levels": every}.items():
    rows = transformer.fit_transform(X)
    clusters[name] = KMeans(n_clusters=5, n_init=10, random_state=0).fit_predict(rows)
    print(f"{name}: agreement {adjusted_rand_score(y, clusters[name]):.2f}")

# %%
# With two labels of each class, a pipeline classifies the other photographs.

model = make_pipeline(every, LogisticRegression(C=100))
labelled = np.concatenate([np.flatnonzero(y == name)[:2] for name in BOXES])
others = np.setdiff1d(np.arange(len(y)), labelled)
model.fit(X[labelled], y[labelled])
print(f"accuracy with ten labels: {model.score(X[others], y[others]):.2f}")

# %%
# Two principal components of the features place similar photographs close to each other. The
# colours of the frames are those of the clusters.

places = PCA(n_components=2).fit_transform(rows)
figure, ax = plt.subplots(figsize=(9, 7), layout="constrained")
ax.scatter(*places.T, alpha=0)  # sets the limits
for place, image, cluster in zip(places, X, clusters["all levels"], strict=True):
    frame = {"edgecolor": f"C{cluster}", "linewidth": 2, "boxstyle": "square,pad=0.1"}
    ax.add_artist(AnnotationBbox(OffsetImage(image, zoom=0.6), place, bboxprops=frame))
ax.set(xlabel="first principal component", ylabel="second principal component")
plt.show()
