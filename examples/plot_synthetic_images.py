"""
=======================================
Training images of the bundled backbone
=======================================

``synth50`` was pre-trained without photographs, on images drawn by code: characters, fractals,
solids, dead leaves, noise and small random programs. Each row shows one source, each pair of
columns one class: the network had to learn the features that both images share.
"""

import matplotlib.pyplot as plt
import numpy as np

from pretraining.synthesis import SOURCES, SyntheticImages

N_CLASSES = 6
images = SyntheticImages(dict.fromkeys(SOURCES, N_CLASSES), per_class=2, seed=7)

# Image i belongs to class i modulo the number of classes; classes are numbered source by source.
first, second = (
    np.stack(
        [images[i + k * images.n_classes][0].permute(1, 2, 0) for i in range(len(images) // 2)]
    )
    for k in range(2)
)
pairs = np.stack([first, second], axis=1).reshape(len(SOURCES), 2 * N_CLASSES, 64, 64, 3)

figure, axes = plt.subplots(len(SOURCES), 2 * N_CLASSES, figsize=(12, 6.4))
for name, row, drawn in zip(SOURCES, axes, pairs, strict=True):
    row[0].set_ylabel(name)
    for ax, image in zip(row, drawn, strict=True):
        ax.imshow(image)
        ax.set(xticks=[], yticks=[])
figure.tight_layout(pad=0.3)
plt.show()
