"""The classifier that the options of a command describe."""

from sklearn_rrr import RRRNetClassifier, list_backbones
from sklearn_rrr.command_line.outcomes import USAGE, CommandError

OPTIONS = ("backbone", "fine_tuning", "blocks", "n_branches", "image_size", "random_state")


def make_classifier(args, **parameters):
    """Return an RRRNetClassifier with the options that were given, and other parameters.

    Raises
    ------
    CommandError
        If the backbone is unknown.
    """
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    if args.backbone is not None and args.backbone not in list_backbones():
        raise CommandError(
            f"--backbone must be one of {', '.join(list_backbones())}; got {args.backbone!r}.",
            USAGE,
        )
    if "blocks" in given:
        given["blocks"] = tuple(given["blocks"])
    return RRRNetClassifier(**given, **parameters)
