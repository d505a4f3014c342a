"""How the command line ends: exit codes, and what is said on the way."""

import json
import os

import pytest

from tfprune.exporting.modes import MODES as LIBRARY_MODES
from tfprune_cli import main
from tfprune_cli.errors import exit_code, one_line
from tfprune_cli.parser import MODES, build_parser

COMMANDS = ("profile", "groups", "prune", "compress", "export", "bench", "compare", "report")
COMPRESS = ["compress", "{model}", "--data", "{data}", "--out", "m.tflite"]


def test_help_fits_one_screen(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run("--help")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "example:\n  tfprune export" in out
    assert all(f"\n    {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_option_and_has_examples_that_parse(run, files, monkeypatch, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    subparsers = next(action for action in build_parser()._actions if action.dest == "command")
    assert all(action.help for action in subparsers.choices[command]._actions)
    examples = [line.split()[1:] for line in out.partition("examples:\n")[2].splitlines()]
    assert examples
    # Only paths that are read have to be there.
    monkeypatch.setattr("tfprune_cli.paths._checked", lambda text, suffixes: text)
    assert [build_parser().parse_args(example).command for example in examples] == [command] * len(examples)


def test_modes_are_those_of_export():
    assert tuple("none" if mode is None else mode for mode in LIBRARY_MODES) == MODES


def test_version(run):
    import tfprune

    assert run("--version") == (0, f"tfprune {tfprune.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["shrink"], "invalid choice: 'shrink'"),
        (["profile"], "MODEL. See `tfprune profile --help`"),
        (["profile", "{model}", "--jsn"], "--jsn. Did you mean --json?"),
        (["profile", "{model}", "--zzz"], "--zzz. See `tfprune --help`"),
        (["prune", "{model}", "out.keras", "--ration=0.5"], "Did you mean --ratio?"),
        (["prune", "{model}", "out.keras"], "either --ratio"),
        (["prune", "{model}", "out.keras", "--ratio", "0.5", "--macs", "0.5"], "either --ratio"),
        (["prune", "{model}", "out.keras", "--ratio", "1.5"], "0.4 removes 40%"),
        (["prune", "{model}", "out.keras", "--ratio", "half"], "0.4 removes 40%"),
        (["prune", "{model}", "out.keras", "--macs", "-1"], "a number above 0"),
        (["export", "{model}", "out.tflite", "--quantize", "int7"], "invalid choice: 'int7'"),
        (["bench", "{file}", "--runs", "0"], "at least 1"),
        ([*COMPRESS, "--budget", "mac=0.5"], "Did you mean macs?"),
        ([*COMPRESS, "--budget", "macs=0.5", "--seed", "-1"], "2**31"),
        ([*COMPRESS, "--budget", "macs=0.5", "--scale", "unit"], "--scale is for folders of images"),
        ([*COMPRESS, "--budget", "macs=0.5", "--validation", "{empty}"], "there are no images"),
        (["compress", "{model}", "--data", "{data}", "--budget", "macs=0.5"], "--out"),
        (["bench", "{file}", "--threads", "x"], "at least 1"),
        (["compare", "{model}"], "--data"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(run, files, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfprune_cli.command.importlib.import_module", lambda name: pytest.fail("work was begun"))
    places = {"model": files / "model.keras", "file": files / "model.tflite", "data": files / "data.npz"}
    code, out, err = run(*(part.format(**places, empty=files / "folder.tflite") for part in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["export", "{model}", "out.tflite", "--quantize", "int8"],
            "--calibration DATA.npz, or use --quantize dynamic",
        ),
        (["export", "{model}", "out.tflite", "--io", "int8"], "Received: --io int8"),
        (["export", "{model}", "out.tflite", "--quantize", "dynamic", "--sparse"], "--sparse cannot be used with"),
        (
            ["compress", "{model}", "--data", "{data}", "--out", "m.tflite", "--budget", "macs=0.5", "--epochs", "1"],
            "--epochs 1. Train longer.",
        ),
        (["prune", "{model}", "out.keras", "--macs", "0.0001"], "`tfprune groups MODEL` shows what is frozen"),
    ],
)
def test_errors_of_the_library_speak_of_options(run, files, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    places = {"model": files / "model.keras", "data": files / "data.npz"}
    code, out, err = run(*(part.format(**places) for part in arguments))
    assert (code, out) == (2, "")
    assert words in err
    assert all(python not in err for python in ('="', "='", "=True", "=None", "Budget("))


def test_unexpected_error_is_one_line_and_70_and_with_debug_a_traceback(run, files, monkeypatch):
    def fails(*arguments, **options):
        raise KeyError("surprise")

    monkeypatch.setattr("tfprune_cli.inspection.load_model", fails)
    code, out, err = run("profile", files / "model.keras")
    assert (code, out) == (70, "")
    assert err == "error: unexpected KeyError: 'surprise'. Run it again with --debug to see where it comes from.\n"
    code, _, err = run("profile", files / "model.keras", "--debug")
    assert code == 70
    assert "in fails" in err


def test_interrupt(run, files, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfprune_cli.inspection.load_model", interrupted)
    assert run("profile", files / "model.keras") == (130, "", "interrupted\n")


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "{file}", "--runs", "1"], ["bench", "{file}", "--json"]])
def test_output_that_nobody_reads(files, monkeypatch, capfd, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert main([part.format(file=files / "model.tflite") for part in arguments]) == 141
    assert capfd.readouterr().err == ""


def test_output_that_cannot_be_written(files, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["--version"]) == 2
    assert capsys.readouterr().err == "error: The result cannot be written: No space left on device.\n"


def test_narrow_terminal_cuts_no_number_off(run, files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    out = run("bench", files / "model.tflite", "--runs", "1")[1]
    assert "…" not in out
    assert f"{(files / 'model.tflite').stat().st_size:,}" in out


def test_an_accident_in_the_library_is_a_bug_and_what_it_raises_on_purpose_is_not():
    from tfprune.common.checks import check_choice

    accidents = [lambda: check_choice("name", "value", None), lambda: int("x"), lambda: {}["key"]]
    for call, code in [*((accident, 70) for accident in accidents), (lambda: check_choice("a", "b", ("c",)), 2)]:
        with pytest.raises(Exception) as caught:  # noqa: PT011, any of them
            call()
        assert exit_code(caught.value) == code


def test_error_raised_inside_with_and_finally_is_still_on_purpose():
    names = {"__name__": "tfprune.somewhere", "contextlib": __import__("contextlib")}
    exec(
        "def on_purpose():\n"
        "    try:\n"
        "        with contextlib.nullcontext():\n"
        "            raise ValueError('words')\n"
        "    finally:\n"
        "        len('')\n"
        "def accident():\n"
        "    with contextlib.nullcontext():\n"
        "        int('x')\n",
        names,
    )
    for name, code in (("on_purpose", 2), ("accident", 70)):
        with pytest.raises(ValueError, match=r"words|invalid literal") as caught:
            names[name]()
        assert exit_code(caught.value) == code


def test_one_line_drops_tables_and_cuts_what_is_endless():
    assert one_line(ValueError("No channel.\n┏━┓\n┃a┃\n└─┘")) == "No channel."
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 5000))) == 1000


def test_json_has_no_nan(capsys, monkeypatch, files):
    from tfprune.measure import BenchmarkReport

    monkeypatch.setattr(
        "tfprune_cli.measuring.benchmark", lambda *paths, **options: BenchmarkReport((), float("nan"), 1)
    )
    assert main(["bench", str(files / "model.tflite"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "files": [],
        "runs": None,
        "num_threads": 1,
    }
