"""Any X that people have, to batches of RGB images of one size.

X may be rows (n, n_features), an array (n, h, w), (n, h, w, c) or (n, c, h, w), a list of
PIL images, arrays or paths, a pandas Series or one-column frame of those, or a torch
Dataset. A source holds it as it came and decodes batch by batch.
"""

from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS, BadImages
from sklearn_rrr.images.folders import load_image_folder
from sklearn_rrr.images.forms import DatasetImages, sort_input, take_images
from sklearn_rrr.images.inspection import inspect_images
from sklearn_rrr.images.layout import ADD_AXIS, SMALLEST_PICTURE
from sklearn_rrr.images.sources import as_unit_float, make_source

__all__ = [
    "ADD_AXIS",
    "MAX_IMAGE_PIXELS",
    "SMALLEST_PICTURE",
    "BadImages",
    "DatasetImages",
    "as_unit_float",
    "inspect_images",
    "load_image_folder",
    "make_source",
    "sort_input",
    "take_images",
]
