"""Command line: ``python -m sklearn_rrr``, or ``sklearn-rrr``.

Only the command that runs imports torch or scikit-learn, so that ``--help`` is fast.
"""

import argparse
import sys
from importlib import import_module

from sklearn_rrr._version import __version__
from sklearn_rrr.command_line.outcomes import run_command

EPILOG = """\
exit codes: 0 success, 1 a problem with files or data, 2 wrong usage, 130 interrupted

examples:
  python -m sklearn_rrr report photos --html report.html
  python -m sklearn_rrr fit photos --out model.safetensors
  python -m sklearn_rrr predict model.safetensors new_photos --csv labels.csv
"""


def main(argv=None):
    """Run a command and return its exit code; wrong usage raises SystemExit(2)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = make_parser().parse_args(argv)
    args.argv = argv
    return run_command(import_module(f"sklearn_rrr.command_line.{args.command}").run, args)


def make_parser():
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m sklearn_rrr",
        description="Classify images in folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sklearn_rrr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{fit,predict,report}")
    for name, add_options in {
        "fit": _add_fit,
        "predict": _add_predict,
        "report": _add_report,
    }.items():
        text = add_options.__doc__
        command = commands.add_parser(name, help=text, description=text)
        add_options(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_fit(parser):
    """Learn from a folder of images and save a model."""
    _add_photos(parser)
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="FILE",
        help="model file to write, such as model.safetensors",
    )
    add("--force", action="store_true", help="replace the model file if it exists")
    add(
        "--on-bad-file",
        choices=("raise", "skip"),
        default="raise",
        help="stop if files cannot be read, or skip them (default: raise)",
    )
    _add_network(parser)
    add(
        "--checkpoint-dir",
        metavar="FOLDER",
        help="save the state of training here; the same command then goes on after an interruption",
    )


def _add_predict(parser):
    """Write the labels of images to a CSV file."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="file written by fit, sklearn_rrr.save or export_onnx")
    add(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="folders, searched at any depth; files; or patterns such as 'photos/**/*.jpg'",
    )
    add("--csv", default="-", metavar="FILE", help="file to write; - is standard output (default)")
    add("--proba", action="store_true", help="add a column with the probability of each class")
    add(
        "--threshold",
        type=_probability,
        metavar="P",
        help="leave the label empty if its probability is below P",
    )
    add("--skip-bad", action="store_true", help="exit with 0 even if some files cannot be read")
    add(
        "--batch",
        type=_whole(1),
        default=256,
        metavar="N",
        help="number of images between two writes to the CSV file (default: 256)",
    )


def _add_report(parser):
    """Measure the accuracy on a folder of images and write one HTML page."""
    _add_photos(parser)
    add = parser.add_argument
    add("--html", required=True, metavar="FILE", help="page to write; an existing one is replaced")
    add(
        "--cv",
        type=_whole(2),
        metavar="K",
        help="number of parts of the cross-validation (default: 5)",
    )
    add(
        "--groups",
        type=_whole(1),
        metavar="DEPTH",
        help="keep images together in the cross-validation whose folder at this depth is the same",
    )
    add(
        "--jobs",
        type=_whole(1),
        metavar="N",
        help="number of processes of the cross-validation (default: 1)",
    )
    add(
        "--worst",
        type=_whole(0),
        default=24,
        metavar="N",
        help="number of errors to show as pictures (default: 24)",
    )
    _add_network(parser)


def _add_photos(parser):
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="folder with one sub-folder of images for each class")
    add(
        "--level",
        type=_level,
        default=1,
        metavar="N|leaf",
        help="depth of the folder whose name is the label; leaf is the innermost (default: 1)",
    )
    add(
        "--splits",
        action="store_true",
        help="the sub-folders are splits: train on the one called train, test on the others",
    )


def _add_network(parser):
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="pre-trained network (default: efficientnet_lite0)")
    add(
        "--fine-tuning",
        choices=("one_pass", "published"),
        help="one_pass only computes the head; published trains as in the paper",
    )
    add(
        "--blocks",
        type=_whole(1),
        nargs=4,
        metavar="N",
        help="number of blocks kept in each of the four phases, such as 1 1 1 1 (default: all)",
    )
    add(
        "--n-branches",
        type=_whole(1, 256),
        metavar="N",
        help="number of branches into which the network is split (default: 1)",
    )
    add(
        "--image-size",
        type=_whole(8, 4096),
        metavar="PIXELS",
        help="height and width to which images are resized (default: that of the backbone)",
    )
    add(
        "--random-state",
        type=_whole(0),
        default=0,
        metavar="SEED",
        help="seed of everything random (default: 0)",
    )


def _whole(low, high=None):
    """Return a function that parses an int of at least `low` and at most `high`."""

    def parse(text):
        limits = f"at least {low}" if high is None else f"in [{low}, {high}]"
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}; got {text!r}")
        return number

    return parse


def _level(text):
    if text == "leaf":
        return text
    try:
        return _whole(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"must be 'leaf', or {str(error)[8:]}") from None


def _probability(text):
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a probability in [0, 1]; got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
