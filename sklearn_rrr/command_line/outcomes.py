"""Messages, errors and exit codes of the commands."""

import contextlib
import os
import re
import sys
import traceback
import warnings

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130
# Parameters of the library that are options of the commands.
PARAMETERS = (
    *("backbone", "blocks", "checkpoint_dir", "fine_tuning", "image_size", "level", "n_branches"),
    *("on_bad_file", "random_state", "splits"),
)


class CommandError(Exception):
    """Error that ends a command with a message.

    Parameters
    ----------
    message : str
    code : int, default=1
        Exit code.
    """

    def __init__(self, message, code=PROBLEM):
        super().__init__(message)
        self.code = code


def run_command(command, args):
    """Call ``command(args)`` and return its exit code; print errors and warnings as one line.

    Parameters
    ----------
    command : callable
        Returns an exit code, or None for 0.
    args : argparse.Namespace
        With `debug`: whether to print the traceback of an error.

    Returns
    -------
    code : int
    """
    with short_warnings():
        try:
            return command(args) or OK
        except BrokenPipeError:  # such as `| head`: nobody reads on
            _close_stdout()
            return PROBLEM
        except KeyboardInterrupt as error:
            return _fail(args, _explain_interrupt(args), INTERRUPTED, error)
        except CommandError as error:
            return _fail(args, str(error), error.code, error)
        except (ValueError, OSError, ImportError) as error:
            return _fail(args, _name_options(str(error)), PROBLEM, error)
        except Exception as error:
            text = f"{type(error).__name__}: {error}\nThis is a fault of the program. Run the "
            return _fail(args, f"{text}command with --debug and report it.", PROBLEM, error)


@contextlib.contextmanager
def short_warnings():
    """Print warnings inside the block as one line."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def say(text, file=None):
    """Print a line; characters that the terminal cannot show are replaced."""
    file = file or sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    text = readable(text).encode(encoding, "backslashreplace").decode(encoding)
    print(text, file=file, flush=True)


def note(text):
    """Print a line of progress to standard error."""
    say(text, sys.stderr)


def readable(text):
    """Return a text with U+FFFD for the bytes of a file name that are not UTF-8."""
    return re.sub("[\ud800-\udfff]", "\ufffd", str(text))


def _fail(args, message, code, error):
    if args.debug:
        traceback.print_exception(error)
    note(f"error: {message}")
    return code


def _explain_interrupt(args):
    if getattr(args, "checkpoint_dir", None):
        return "interrupted. Run the same command again to go on."
    return "interrupted."


def _name_options(message):
    """Return a message of the library with options instead of parameters."""
    for name in PARAMETERS:
        option = "--" + name.replace("_", "-")
        message = re.sub(rf"`{name}`|\b{name}=True", option, message)
    return message


def _show_warning(message, category, filename, lineno, file=None, line=None):
    note(f"warning: {_name_options(str(message))}")


def _close_stdout():
    """Let the interpreter flush the rest of standard output to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
