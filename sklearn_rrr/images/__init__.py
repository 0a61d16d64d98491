"""Convert any supported X to batches of RGB images of one size.

X may be rows (n, n_features), an array (n, h, w), (n, h, w, c) or (n, c, h, w), a list of
PIL images, arrays or paths, a pandas Series or one-column frame of those, or a torch
Dataset. A source stores X unchanged and decodes it batch by batch.
"""
