"""What was tried before the recipe was settled: short runs, judged by their transfer.

    python -m pretraining.trials --data DIR

A row that is in the results already is not run again.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pretraining.recipe import Recipe
from pretraining.stages import LOG, draw_images, train
from pretraining.transfer import probe, read_training_halves

SHORT = Recipe(per_class=60, steps=800, whole_from=1.0, planes=(16, 32, 64, 128))
ALL = dict.fromkeys(Recipe().classes, 75)
TRIALS = {
    "random weights": replace(SHORT, classes={"leaves": 300}, steps=0),
    **{name: replace(SHORT, classes={name: 300}) for name in ALL},
    "all sources": replace(SHORT, classes=ALL),
    "the recipe's mixture": replace(SHORT, classes=Recipe().classes, per_class=100),
    "all sources, batches of 128": replace(
        SHORT, classes=ALL, steps=1600, batch_size=128, learning_rate=2e-3
    ),
    "all sources, planes 24": replace(SHORT, classes=ALL, planes=(24, 48, 96, 192)),
    "all sources, planes 32": replace(SHORT, classes=ALL, planes=(32, 64, 96, 192)),
    "all sources, pairs": replace(SHORT, classes=ALL, objective="pairs"),
    "all sources, pairs and classes": replace(SHORT, classes=ALL, objective="both"),
    "all sources, 96 pixels": replace(SHORT, classes=ALL, size=96),
}


def run(name, folder, data):
    """Pre-train for one trial; return its row: accuracy on each set, and the mean."""
    recipe = TRIALS[name]
    images = f"{'-'.join(f'{k}{n}' for k, n in recipe.classes.items())}-{recipe.size}"
    drawn = folder / images
    drawn.mkdir(parents=True, exist_ok=True)
    own = folder / name.replace(" ", "_")
    own.mkdir(exist_ok=True)
    network = train(recipe, draw_images(recipe, drawn), own)
    sets = read_training_halves(data, recipe.size)
    rows = []
    for network_name, reduced in (("1_1_1_1", True), ("3_4_6_3", False)):
        if reduced or recipe.whole_from < 1:
            accuracy = probe(network, sets, reduced)
            mean = sum(accuracy.values()) / len(accuracy)
            row = {"trial": name, "network": network_name, "mean": mean}
            row["recipe"] = recipe.as_json()
            rows.append(row | accuracy)
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--trials", nargs="*", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--folder", type=Path, default=Path("build/trials"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "trials.csv")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in options.trials:
        rows = pd.read_csv(options.results) if options.results.exists() else pd.DataFrame()
        if not rows.empty and name in set(rows.trial):
            if rows.recipe[rows.trial == name].iloc[0] != TRIALS[name].as_json():
                raise SystemExit(f"{name!r} in {options.results} is of another recipe; remove it.")
            continue
        new = pd.DataFrame(run(name, options.folder, options.data))
        LOG.info("%s: %s", name, new[["network", "mean"]].round(4).to_dict("records"))
        pd.concat([rows, new]).round(4).to_csv(options.results, index=False)


if __name__ == "__main__":
    main()
