"""Read folders of data sets in Meta-Album form: ``<SET>/labels.csv`` and ``<SET>/images/``."""

import hashlib

import numpy as np
import pandas as pd

PER_CLASS = 20  # training images, and test images, of a set without a split


def find_sets(data, names=None):
    """Return the sorted folders of all sets, or of the sets in `names`."""
    folders = sorted(path.parent for path in data.glob("*/labels.csv"))
    if not folders:
        raise SystemExit(
            f"{data} holds no set: a set is a folder with labels.csv (FILE_NAME, CATEGORY and, if "
            "there is one, SPLIT) and images/"
        )
    if unknown := {*(names or [])} - {folder.name for folder in folders}:
        raise SystemExit(f"{data} holds no set {min(unknown)!r}")
    return [folder for folder in folders if not names or folder.name in names]


def fingerprint(folder):
    """Return a hexadecimal digest of a set's table and images."""
    digest = hashlib.blake2b((folder / "labels.csv").read_bytes(), digest_size=8)
    for path in sorted((folder / "images").iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def read_set(folder, seed=0):
    """Return {split: (list of paths, labels)} of one set, with the splits "train" and "test".

    ``labels.csv`` has the columns FILE_NAME and CATEGORY, and may have SPLIT. Without it, 20
    training images and 20 other test images of each class are drawn, determined by `seed`.
    """
    table = pd.read_csv(folder / "labels.csv", dtype={"CATEGORY": str})
    if missing := {"FILE_NAME", "CATEGORY"} - set(table):
        raise SystemExit(f"{folder / 'labels.csv'} has no column {min(missing)}")
    if table.CATEGORY.isna().any():
        line = table.CATEGORY.isna().argmax() + 2
        raise SystemExit(f"{folder / 'labels.csv'}: line {line} names no CATEGORY")
    if "SPLIT" not in table:
        table = _draw_split(table, folder, seed)
    parts = {name: rows for name, rows in table.groupby("SPLIT") if name in ("train", "test")}
    if len(parts) < 2:
        raise SystemExit(f"{folder / 'labels.csv'}: SPLIT must hold both train and test")
    if unseen := {*parts["test"].CATEGORY} - {*parts["train"].CATEGORY}:
        raise SystemExit(f"{folder / 'labels.csv'}: no image of {min(unseen)!r} to train on")
    if missing := [n for n in table.FILE_NAME if not (folder / "images" / n).is_file()]:
        raise SystemExit(f"{folder.name}: there is no {folder / 'images' / missing[0]}")
    return {
        split: ([folder / "images" / name for name in rows.FILE_NAME], rows.CATEGORY.to_numpy())
        for split, rows in parts.items()
    }


def _draw_split(table, folder, seed):
    rng, drawn = np.random.default_rng(seed), []
    for category, rows in table.groupby("CATEGORY"):
        if len(rows) < 2 * PER_CLASS:
            raise SystemExit(
                f"{folder.name}: class {category!r} has {len(rows)} images, {2 * PER_CLASS} are "
                "needed; give labels.csv a column SPLIT with train and test"
            )
        chosen = rows.iloc[rng.permutation(len(rows))[: 2 * PER_CLASS]]
        drawn.append(chosen.assign(SPLIT=["train", "test"] * PER_CLASS))
    return pd.concat(drawn)
