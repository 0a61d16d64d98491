"""Help, versions, usage errors and exit codes."""

import re
import subprocess
import sys
from argparse import Namespace

import pytest

import sklearn_rrr
from sklearn_rrr.__main__ import main
from sklearn_rrr.command_line.outcomes import CommandError, run_command


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from sklearn_rrr.__main__ import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit as end: print(end.code)\n"
        "print(sorted({'numpy', 'sklearn', 'torch', 'PIL', 'tqdm'} & sys.modules.keys()))"
    )
    done = run_python("-c", code)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]
    assert "folder with one sub-folder of images for each class" in done.stdout


def test_module_prints_its_version():
    done = run_python("-m", "sklearn_rrr", "--version")
    assert (done.returncode, done.stdout) == (0, f"sklearn_rrr {sklearn_rrr.__version__}\n")


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert re.findall(r"^    (\w+) ", out, re.MULTILINE) == ["fit", "predict", "report"]
    assert "130 interrupted" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: {fit,predict,report}"),
        (["fit", "x"], "required: --out"),
        (["fit", "x", "--out", "m", "--level", "0"], "must be 'leaf', or a whole number"),
        (["fit", "x", "--out", "m", "--blocks", "1", "1"], "expected 4 arguments"),
        (["fit", "x", "--out", "m", "--n-branches", "300"], "in [1, 256]; got '300'"),
        (["fit", "x", "--out", "m", "--image-size", "big"], "in [8, 4096]; got 'big'"),
        (["predict", "m"], "required: PHOTOS"),
        (["predict", "m", "x", "--threshold", "90"], "a probability in [0, 1]; got '90'"),
        (["predict", "m", "x", "--threshold", "nan"], "a probability in [0, 1]; got 'nan'"),
        (["report", "x", "--html", "p", "--cv", "1"], "at least 2; got '1'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_unknown_backbone_is_wrong_usage(photos, tmp_path, capsys):
    out = str(tmp_path / "m.safetensors")
    assert main(["fit", str(photos), "--out", out, "--backbone", "resnet7"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --backbone must be one of efficientnet_lite0,")
    assert error.endswith("got 'resnet7'.\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted.\n"),
        (CommandError("no", 2), 2, "error: no\n"),
        (ValueError("bad file"), 1, "error: bad file\n"),
        (PermissionError(13, "denied", "x"), 1, "error: [Errno 13] denied: 'x'\n"),
        (ImportError("pip install x"), 1, "error: pip install x\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_errors_are_one_line(error, code, message, capsys):
    def fail(args):
        raise error

    assert run_command(fail, Namespace(debug=False)) == code
    assert capsys.readouterr().err == message


def test_faults_of_the_program_say_so(capsys):
    assert run_command(lambda args: {}[args.name], Namespace(debug=False, name="x")) == 1
    assert capsys.readouterr().err.startswith("error: KeyError: 'x'\nThis is a fault of the")


def test_interrupt_with_checkpoints_says_how_to_go_on(capsys):
    def stop(args):
        raise KeyboardInterrupt

    assert run_command(stop, Namespace(debug=False, checkpoint_dir="x")) == 130
    assert "Run the same command again" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, capsys):
    arguments = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path)]
    assert main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main([*arguments, "--debug"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("error: no images in")
