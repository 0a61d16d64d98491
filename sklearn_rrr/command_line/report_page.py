"""The page of ``report``: one HTML file that needs nothing else."""

import os

from sklearn_rrr.command_line.html_tree import name_of, table, tag, write_document
from sklearn_rrr.command_line.outcomes import readable
from sklearn_rrr.command_line.report_style import STYLE
from sklearn_rrr.command_line.scores import find_interval
from sklearn_rrr.command_line.thumbnails import embed_thumbnail

MOST_CLASSES = 40  # of a confusion matrix; more give a list of pairs
MOST_LINES = 100  # of each list
RIGHT, WRONG = "46,125,50", "198,40,40"  # red, green, blue


def make_page(folder, scores, report, settings, n_worst):
    """Return the page as text.

    Parameters
    ----------
    folder : str
    scores : Scores
    report : ImageReport
    settings : dict of str
        Rows of the last table.
    n_worst : int
        Largest number of errors to show as pictures.
    """
    return write_document(
        f"Report on {readable(folder)}",
        STYLE,
        tag("h1", "Report on ", name_of(folder)),
        tag("p", scores.method.capitalize(), "."),
        _make_summary(scores),
        _make_hints(report),
        _make_confusion(scores),
        _make_class_table(scores),
        _make_thresholds(scores),
        _make_gallery(folder, scores, n_worst),
        _make_image_report(report),
        tag("h2", "Settings"),
        table(None, settings.items(), class_="texts"),
    )


def _make_summary(scores):
    n_right, n = int(scores.is_right.sum()), len(scores.target)
    low, high = find_interval(n_right, n)
    tiles = [
        ("Accuracy", _percent(n_right / n), f"95% interval {_percent(low)} to {_percent(high)}"),
        ("Balanced accuracy", _percent(scores.balanced_accuracy), "mean over the classes"),
        ("Errors", str(n - n_right), f"of {n} images"),
        ("Baseline", _percent(scores.chance), "always predicts the most frequent class"),
    ]
    return tag(
        "div",
        [
            tag("div", tag("span", title), tag("strong", value), tag("span", more))
            for title, value, more in tiles
        ],
        class_="tiles",
    )


def _make_hints(report):
    """Return warnings about images that make the accuracy wrong."""
    hints = []
    if n := len(report.across_labels):
        hints.append(f"{_groups(n, 'has', 'have')} different labels; some labels are wrong.")
    if n := len(report.across_splits):
        hints.append(f"{_groups(n, 'lies', 'lie')} in several splits; the accuracy is too high.")
    elif n := len(report.duplicates):
        hints.append(
            f"{_groups(n, 'was', 'were')} found. If one file is trained on and its copy is tested, "
            "the accuracy is too high."
        )
    if n := len(report.bad):
        what = "file cannot be read and was" if n == 1 else "files cannot be read and were"
        hints.append(f"{n} {what} left out.")
    return [tag("p", hint, class_="hint") for hint in hints]


def _groups(n, one, many):
    noun, verb = ("group", one) if n == 1 else ("groups", many)
    return f"{n} {noun} of identical files {verb}"


def _make_confusion(scores):
    classes, counts = scores.classes, scores.confusion
    title = tag("h2", "Confusion matrix")
    if len(classes) > MOST_CLASSES:
        pairs = scores.confused_pairs()
        header = ("true class", "predicted class", "images")
        rows = [(name_of(a), name_of(b), _number(n)) for a, b, n in pairs[:MOST_LINES]]
        return [tag("h2", "Most frequent confusions"), table(header, rows)]
    rows = []
    for i, label in enumerate(classes):
        total = max(counts[i].sum(), 1)
        cells = [_shade(n, n / total, RIGHT if i == j else WRONG) for j, n in enumerate(counts[i])]
        rows.append((name_of(label), *cells))
    header = ("true \\ predicted", *(tag("span", name_of(label)) for label in classes))
    text = "Each row is a true class, each column a predicted one. Colours are shares of the row."
    return [title, tag("p", text), table(header, rows, class_="confusion")]


def _shade(n, share, colour):
    style = f"background:rgba({colour},{0.65 * share:.2f})" if n else None
    return tag("td", str(n) if n else "·", style=style, class_="number")


def _make_class_table(scores):
    mistaken = {}
    for label, other, n in scores.confused_pairs():
        mistaken.setdefault(label, (other, n))
    rows = []
    for label, n, precision, recall, f1 in scores.by_class():
        other = mistaken.get(label)
        most = [name_of(other[0]), f" ({other[1]})"] if other else "–"
        figures = (_number(_percent(value)) for value in (recall, precision, f1))
        rows.append((name_of(label), _number(n), *figures, tag("td", most)))
    header = ("class", "images", "recall", "precision", "F1", "most often mistaken for")
    text = (
        "Recall: share of the images of a class that are recognised. Precision: share of the "
        "images with a predicted class that belong to it. F1: harmonic mean of both."
    )
    return [tag("h2", "Classes"), tag("p", text), table(header, rows)]


def _make_thresholds(scores):
    rows = [
        (f"{threshold:g}", _number(_percent(share)), _number("–" if a is None else _percent(a)))
        for threshold, share, a in scores.by_threshold()
    ]
    text = (
        "With --threshold, predict leaves the label empty if its probability is below the "
        "threshold. The table shows how many images get a label, and how many labels are right."
    )
    header = ("threshold", "images with a label", "accuracy of the labels")
    return [tag("h2", "Thresholds"), tag("p", text), table(header, rows)]


def _make_gallery(folder, scores, n_worst):
    worst = scores.worst_errors()
    if not len(worst) or not n_worst:
        text = "There are no errors." if not len(worst) else None
        return [tag("h2", "Worst errors"), tag("p", text)] if text else []
    shown = worst[:n_worst]
    text = (
        f"{len(shown)} of {len(worst)} errors, those with the least probable true class first. "
        "Some may be wrong labels."
    )
    cards = [_make_card(folder, scores, i) for i in shown]
    return [tag("h2", "Worst errors"), tag("p", text), tag("div", cards, class_="gallery")]


def _make_card(folder, scores, i):
    true, predicted, path = scores.target[i], scores.predicted[i], scores.paths[i]
    name = os.path.relpath(path, folder)
    source = embed_thumbnail(path)
    alt = f"{readable(true)}, predicted as {readable(predicted)}"
    lines = []
    for what, label in (("true", true), ("predicted", predicted)):
        share = f" {scores.probability_of(i, label):.3f}"
        lines.append(tag("div", f"{what}: ", tag("b", name_of(label)), share))
    picture = tag("img", src=source, alt=alt) if source else tag("p", "cannot be shown")
    return tag(
        "figure", picture, tag("figcaption", lines, tag("div", name_of(name), class_="path"))
    )


def _make_image_report(report):
    parts = [tag("h2", "Images"), tag("p", str(report), ".")]
    if report.bad:
        rows = [(name_of(path), reason) for path, reason in report.bad[:MOST_LINES]]
        parts += [tag("h3", "Files that cannot be read"), *_limit(len(report.bad))]
        parts.append(table(("file", "reason"), rows, class_="texts"))
    groups = {
        "Identical files in several splits": report.across_splits,
        "Identical files with different labels": report.across_labels,
        "All identical files": report.duplicates,
    }
    for title, found in groups.items():
        if found:
            items = [
                tag("li", [tag("div", name_of(path), class_="path") for path in group])
                for group in found[:MOST_LINES]
            ]
            parts += [tag("h3", title), *_limit(len(found)), tag("ul", items)]
    return parts


def _limit(n):
    return [tag("p", f"The first {MOST_LINES} of {n}.")] if n > MOST_LINES else []


def _number(value):
    return tag("td", str(value), class_="number")


def _percent(share):
    return f"{100 * share:.1f}%"
