"""Make the weights of synth50: python -m pretraining [--steps N] [--folder DIR]."""

import argparse
import hashlib
import json
import logging
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
import torch

from pretraining.recipe import FONTS_SHA256, Recipe
from pretraining.stages import LOG, draw_images, export, train
from pretraining.synthesis import find_fonts
from sklearn_rrr._validation import resolve_device
from sklearn_rrr.backbones.weights import BUNDLED


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="fewer steps than the recipe's, to try it")
    parser.add_argument("--folder", type=Path, default=Path("build/synth50"))
    parser.add_argument("--fonts", type=Path, help="folder of fonts, instead of those found")
    parser.add_argument("--device", default="cpu", help="the recipe's is the CPU")
    options = parser.parse_args(arguments)
    recipe = Recipe()
    if options.steps is not None:
        recipe = recipe.shortened(options.steps)
    options.folder.mkdir(parents=True, exist_ok=True)
    with logged_to(options.folder / "log"):
        make_weights(recipe, options)


def make_weights(recipe, options):
    """Run the three stages, and say what came out."""
    fonts = find_fonts(options.fonts, system=False)
    fonts_hash = hash_files(fonts)
    if fonts_hash != FONTS_SHA256:
        LOG.warning("These are not the fonts of the recipe: other images, other weights.")
    claim(options.folder, recipe, fonts_hash)
    LOG.info(
        "torch %s, numpy %s, Pillow %s, %d threads, %s",
        *(torch.__version__, np.__version__, PIL.__version__, torch.get_num_threads()),
        options.device,
    )
    images = draw_images(recipe, options.folder, fonts)
    network = train(recipe, images, options.folder, resolve_device(options.device))
    path = options.folder / "synth50.safetensors"
    n_bytes = export(network, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    LOG.info("%s: %d bytes, SHA-256 %s", path, n_bytes, digest)
    same = digest == BUNDLED["synth50"][1]
    LOG.info("these are %s weights as in the package", "the same" if same else "not the same")


@contextmanager
def logged_to(file):
    """Write the log to the terminal and to a file."""
    handlers = [logging.StreamHandler(), logging.FileHandler(file)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            LOG.removeHandler(handler)
            handler.close()


def hash_files(paths):
    """Return the SHA-256 of the files' names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def claim(folder, recipe, fonts_hash):
    """Write into the folder what it is for; refuse one that holds other work."""
    file = folder / "recipe.json"
    content = json.dumps({"recipe": json.loads(recipe.as_json()), "fonts": fonts_hash}, indent=1)
    if file.exists() and file.read_text() != content:
        raise SystemExit(
            f"{folder} holds the work of another recipe or other fonts; name another --folder."
        )
    file.write_text(content)


if __name__ == "__main__":
    main()
