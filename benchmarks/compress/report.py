"""Tables and Pareto plots of the compression methods."""

import joblib
import matplotlib
import numpy as np
import pandas as pd

from benchmarks.paper.statistics import half_width, markdown
from sklearn_rrr import measure_latency
from sklearn_rrr.search.forward_selection import pareto_front

matplotlib.use("agg")
from matplotlib import pyplot

CONDITION = ["backbone", "steps", "image_size"]
ROUNDS = 5


def measure_latencies(rows, path_of, key):
    """Return the rows whose networks are on disk, with the latency of one image in ms.

    Networks of one set run in interleaved rounds; the latency is the median over rounds.
    """
    tables = []
    for _, part in rows.groupby([*CONDITION, "set", "seed"], sort=False):
        paths = [path_of(row) for row in part[key].to_dict("records")]
        part = part[[path.exists() for path in paths]]
        models = [joblib.load(path) for path in paths if path.exists()]
        times = [[measure_latency(m, repeats=7).median for m in models] for _ in range(ROUNDS)]
        tables.append(part.assign(latency_ms=np.median(times, axis=0)))
    return pd.concat(tables, ignore_index=True)


def summarise(rows):
    """Return a row per system and share: means over sets, with costs relative to the start.

    The start is the fine-tuned network. ± is half of the 95 % interval, over sets, of the
    difference in accuracy to it.
    """
    start = rows[rows.system == "fine-tuned"].set_index(["set", "seed"])
    rows = rows.set_index(["set", "seed"])
    reference = start.loc[rows.index]
    table = pd.DataFrame({"system": rows.system, "share": rows.share, "accuracy": rows.accuracy})
    table["gain"] = rows.accuracy - reference.accuracy
    for column in ("n_parameters", "nonzero", "macs", "latency_ms"):
        if column in rows:
            table[column] = rows[column].to_numpy() / reference[column].to_numpy()
    by_set = table.groupby(["system", "share", "set"]).mean()  # over seeds
    groups = by_set.groupby(["system", "share"])
    result = groups.mean()
    result["±"] = groups.gain.agg(half_width)
    result["sets"] = groups.size()
    return result.reset_index()


def summarise_nettailor(rows):
    """Return NetTailor's students and teachers by set, and which meet the goal of the benchmark."""
    own = rows[rows.system == "NetTailor"]
    if not len(own):
        return None
    start = rows[rows.system == "fine-tuned"].set_index(["set", "seed"])
    before = start.n_parameters.loc[list(zip(own.set, own.seed, strict=True))].to_numpy()
    table = pd.DataFrame(
        {
            "teacher, held out": own.teacher_score,
            "student, held out": own.student_score,
            "parameters gone": 1 - own.n_parameters / before,
            "teacher, test": own.teacher_accuracy,
            "student, test": own.accuracy,
        }
    )
    table.index = own.set + [f" {seed}" if rows.seed.nunique() > 1 else "" for seed in own.seed]
    within = table["student, held out"] >= table["teacher, held out"] - 0.005 - 1e-9
    table["within .005, 35 % gone"] = (within & (table["parameters gone"] >= 0.35)).map(
        {True: "yes", False: "no"}
    )
    return table.sort_index()


def summarise_retraining(rows):
    """Compare progressive with usual retraining by set, and as a mean over sets.

    Pairs have the same share and seed. ± is half of the 95 % interval over seeds, and in the rows
    "mean" over sets.
    """
    names = ["kernels, progressive", "kernels, usual"]
    pairs = rows[rows.system.isin(names)].pivot(
        index=["share", "set", "seed"], columns="system", values="accuracy"
    )
    if pairs.shape[1] < 2 or not len(pairs := pairs.dropna()):
        return None
    pairs = pairs[names].set_axis(["progressive", "usual"], axis=1)
    pairs["difference"] = pairs.progressive - pairs.usual
    groups = pairs.groupby(["share", "set"])
    table = groups.mean()
    table["±"] = groups.difference.agg(half_width)
    over = table.groupby("share")
    means = over.mean()
    means["±"] = over.difference.agg(half_width)
    means.index = pd.MultiIndex.from_tuples([(share, "mean") for share in means.index])
    table = pd.concat([table, means]).sort_index(level=0, sort_remaining=False)
    return table.set_index(table.index.map("{0[1]}, {0[0]:g}".format))


def write(rows, latencies, folder):
    """Write the report and the figure of each condition; return the report."""
    lines = ["# Ways to a smaller network", ""]
    for condition, part in latencies.groupby(CONDITION, sort=False):
        backbone, steps, size = condition
        title = f"{backbone}" + (f", {steps} steps" if steps else "")
        title += f", {size} pixels" if size else ""
        table = summarise(part)
        lines += [f"## {title}", "", _extent(part), ""]
        shown = table.set_index(table.system + table.share.map(lambda s: f", {s:g}" if s else ""))
        lines += [*markdown(shown.drop(columns=["system", "share"]), "system, share asked"), ""]
        if (tailored := summarise_nettailor(part)) is not None:
            lines += ["### NetTailor and its teacher", "", *markdown(tailored, "set"), ""]
        if (retrained := summarise_retraining(part)) is not None:
            title_of = "### Kernels: progressive against usual retraining"
            lines += [title_of, "", *markdown(retrained, "set, share asked"), ""]
        name = "_".join(map(str, condition))
        # Means over different sets are not comparable.
        draw(table[table.sets == table.sets.max()], title, folder / f"pareto_{name}.png")
    text = "\n".join(lines)
    (folder / "report.md").write_text(text)
    latencies.to_csv(folder / "latencies.csv", index=False, float_format="%.6g")
    return text


def _extent(rows):
    hours = rows.fit_seconds.sum() / 3600
    return (
        f"{rows.set.nunique()} sets, {rows.seed.nunique()} seeds, {hours:.1f} hours of fits. Means "
        "over sets; gain is the difference in test accuracy to the fine-tuned network, ± half of "
        "its 95 % interval over sets; costs are shares of that network's, latency of one image on "
        "the CPU."
    )


def draw(table, title, path):
    """Draw accuracy against parameters and latency, with the Pareto front."""
    costs = {"n_parameters": "parameters", "latency_ms": "latency of one image"}
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    for ax, (column, label) in zip(axes, costs.items(), strict=True):
        for name, part in table.groupby("system", sort=False):
            part = part.sort_values(column)
            spread = part["±"].fillna(0)
            ax.errorbar(part[column], part.accuracy, spread, fmt="o-", capsize=2, label=name)
        front = table[pareto_front(table[column], table.accuracy)].sort_values(column)
        ax.step(front[column], front.accuracy, "k:", where="post", label="Pareto front")
        ax.set(xlabel=f"{label}, share of the fine-tuned network's", xscale="log")
        ax.grid(alpha=0.3)
    axes[0].set(ylabel="test accuracy, mean over sets", title=title)
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
