"""Statistics reported in the paper: errors, intervals, tests and ranks."""

import numpy as np
import pandas as pd
from scipy.stats import t, wilcoxon

CONDITION = ["backbone", "settings", "epochs", "image_size"]


def by_condition(rows):
    """Yield (title, rows) for each combination of backbone, settings, epochs and image size."""
    for condition, part in rows.groupby(CONDITION, sort=False):
        backbone, settings, epochs, size = condition
        title = f"{backbone}, {settings} settings"
        title += f", {epochs} epochs" if epochs else ""
        yield title + (f", {size} pixels" if size else ""), part


def mean_errors(rows):
    """Return the mean error over seeds of each set (row) and model (column)."""
    return rows.pivot_table("error", "set", "model")


def half_width(errors):
    """Return half of the 95 % confidence interval of a mean, from the t distribution."""
    n = len(errors)
    return t.ppf(0.975, n - 1) * errors.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan


def half_widths(rows):
    """Return half of the 95 % interval over seeds of each set (row) and model (column)."""
    return rows.pivot_table("error", "set", "model", aggfunc=half_width, dropna=False)


def complete(rows):
    """Return the rows of models A to E, for the sets and seeds that all present models share."""
    rows = rows[rows.model.isin(list("ABCDE"))]
    counts = rows.groupby(["set", "seed"]).model.transform("nunique")
    return rows[counts == rows.model.nunique()]


def summarise(rows):
    """Return a row for each model: error over sets, and the test of E against the model."""
    errors = mean_errors(rows)
    table = pd.DataFrame(
        {
            "mean error": errors.mean(),
            "median": errors.median(),
            "quartile 1": errors.quantile(0.25),
            "quartile 3": errors.quantile(0.75),
            "± over seeds": half_widths(rows).mean(),
            "mean rank": errors.rank(axis=1).mean(),
            "fit, s": rows.groupby("model").fit_seconds.median(),
        }
    )
    if "E" in errors:
        others = [model for model in errors if model != "E"]
        table["E better on"] = {m: int((errors[m] > errors.E).sum()) for m in others}
        table["p, E better"] = {m: compare(errors.E, errors[m]) for m in others}
    return table


def compare(errors, others):
    """Return the p-value of the one-tailed Wilcoxon signed-rank test that `errors` are smaller.

    Each pair is one set with its means over seeds, since seeds of one set are not independent.
    """
    difference = errors - others
    if not difference.any():
        return 1.0
    return wilcoxon(difference, alternative="less").pvalue


def report(rows, costs):
    """Return all tables as Markdown."""
    lines = ["# The experiments of RRR-Net", ""]
    for title, part in by_condition(rows):
        paired = complete(part)
        if len(paired):
            lines += [f"## {title}", "", _extent(paired), ""]
            lines += [*markdown(summarise(paired), "model"), ""]
            errors, half = mean_errors(paired), half_widths(paired)
            cells = errors.map("{:.3f}".format) + half.map(_plus_minus)
            cells.loc["mean"] = errors.mean().map("{:.3f}".format)
            lines += [*markdown(cells, "set"), ""]
        branches = branch_errors(part)
        if len(branches) > 1:
            lines += [f"## Error against the number of branches: {title}", ""]
            lines += [*markdown(branches, "branches"), ""]
    lines += ["## Costs, ten classes, on the CPU of these experiments", ""]
    lines += markdown(costs.set_index("models"), "models")
    return "\n".join(lines) + "\n"


def branch_errors(rows):
    """Return the mean error and half of its 95 % interval over seeds by number of branches.

    Only sets and seeds with all numbers of branches are included. C has one branch, E has eight.
    """
    names = {"C": 1, "E": 8}
    numbers = rows.model.map(lambda m: names.get(m) or m.removesuffix(" branches"))
    numbers = pd.to_numeric(numbers, errors="coerce")
    rows = rows.assign(branches=numbers).dropna(subset="branches")
    if not rows.model.str.endswith(" branches").any():
        return pd.DataFrame()
    counts = rows.groupby(["set", "seed"]).branches.transform("nunique")
    rows = rows[counts == rows.branches.nunique()].astype({"branches": int})
    seeds = rows.groupby(["branches", "seed"]).error.mean().unstack()
    half = seeds.agg(half_width, axis=1)
    return pd.DataFrame(
        {"mean error": seeds.mean(axis=1), "± over seeds": half, "sets": rows.set.nunique()}
    )


def _extent(rows):
    hours = rows.fit_seconds.sum() / 3600 / rows.jobs.max()
    return (
        f"{rows.set.nunique()} sets, {rows.seed.nunique()} seeds, {len(rows)} fits in {hours:.1f} "
        "hours. Errors are shares of the test images; ± is half of the 95 % interval from the t "
        "distribution over seeds, here its mean over sets; p is of the one-tailed Wilcoxon "
        "signed-rank test over sets."
    )


def _plus_minus(half):
    return "" if np.isnan(half) else f" ± {half:.3f}"


def markdown(table, index):
    """Yield the lines of a Markdown table."""
    yield f"| {index} | " + " | ".join(map(str, table.columns)) + " |"
    yield "|---" * (table.shape[1] + 1) + "|"
    for name, row in zip(table.index, table.itertuples(index=False), strict=True):
        yield f"| {name} | " + " | ".join(map(_cell, row)) + " |"


def _cell(value):
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 0.001 else f"{value:.3f}"
