"""Speed of fit and predict beside bare passes of the same networks in plain torch.

    python -m benchmarks.speed [--parts one_pass,training] [--rounds 5]

Parts: one_pass, default, training, branches, kernels, forms, importing. Each part runs its
contenders in interleaved rounds and reports medians; ratios compare contenders of the same rounds.
Labels are arbitrary, because costs do not depend on them, and images are pieces of scikit-learn's
two photographs. Results are written to benchmarks/results: speed.csv (a row for each contender)
and speed.md.
"""

import argparse
import inspect
import time
from pathlib import Path

import pandas as pd
import torch

from benchmarks.speed.branches import branches, forms, kernels
from benchmarks.speed.contenders import BACKBONE
from benchmarks.speed.estimators import default, importing, one_pass, training

RESULTS = Path(__file__).parents[1] / "results"
PARTS = {
    part.__name__: part
    for part in (one_pass, default, training, branches, kernels, forms, importing)
}


def write(table):
    """Write all parts measured so far as Markdown."""
    lines = [
        f"# Speed\n\n{BACKBONE} where nothing else is said; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. Medians of interleaved rounds; written by "
        "`make bench-speed`."
    ]
    for name, rows in table.groupby("part", sort=False):
        rows = rows.drop(columns="part").dropna(axis=1, how="all")
        lines += ["", f"## {name}", "", inspect.cleandoc(PARTS[name].__doc__), ""]
        lines += [f"| {' | '.join(rows.columns)} |", "|---" * rows.shape[1] + "|"]
        for row in rows.itertuples(index=False):
            lines.append(f"| {' | '.join(map(_cell, row))} |")
    (RESULTS / "speed.md").write_text("\n".join(lines) + "\n")


def _cell(value):
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    file = RESULTS / "speed.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame({"part": []})
    table = table[table.part.isin(PARTS)]
    for name in options.parts.split(","):
        start = time.perf_counter()
        rows = pd.DataFrame(PARTS[name](options.rounds))
        rows.insert(0, "part", name)
        print(rows.to_string(index=False), f"\n{time.perf_counter() - start:.0f} s", flush=True)
        table = pd.concat([table[table.part != name], rows], ignore_index=True)
        table.to_csv(file, index=False, float_format="%.4g")
        write(table)


if __name__ == "__main__":
    main()
