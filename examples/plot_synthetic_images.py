"""
===============================================
The images that the bundled backbone learned from
===============================================

``synth50`` has seen no photograph. Code drew everything it was trained on: characters,
fractals, solids, dead leaves, noise and small random programs. A row shows one source, a
pair of columns one class: what both images share is what the network had to find.
"""

import matplotlib.pyplot as plt
import numpy as np

from pretraining.synthesis import SOURCES, SyntheticImages

N_CLASSES = 6
PICTURE = "synthetic_images.png"

images = SyntheticImages(dict.fromkeys(SOURCES, N_CLASSES), per_class=2, seed=7)

# Image i is of class i modulo the number of classes, which are numbered source by source.
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
figure.savefig(PICTURE, dpi=80)
print(f"{images.n_classes} classes of {len(SOURCES)} sources are drawn in {PICTURE}")
