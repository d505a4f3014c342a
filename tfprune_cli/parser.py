"""What can stand on the command line. Nothing here loads TensorFlow."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from tfprune_cli.paths import data_path, history_path, keras_path, labelled_path, model_path, tflite_path
from tfprune_cli.values import SIZES, budget, count, fraction, positive, round_to, seed

MODES = ("none", "float16", "dynamic", "int8", "int16x8", "int8_weights", "int4_weights")
_IO_DTYPES = ("float32", "int8", "uint8", "int16")
_MODEL = "a .keras or .h5 model"
_DATA = "a .npz with an array x, or one for each input by its name"
LOSSES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
PRESETS = ("fast", "balanced", "best")
SCALES = ("none", "unit", "signed")

_DESCRIPTION = "Look into, prune, export, time and compare Keras models and .tflite files."
_EPILOG = """\
example:
  tfprune export model.keras model.tflite --quantize int8 --calibration x.npz

`tfprune COMMAND --help` explains a command, with examples.
exit status: 0 fine, 1 a check failed, 2 bad input or usage, 70 a bug"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the command line are."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and unless that is a sentence that says what to do, where to read on; exit with 2."""
        message = " ".join(message.split())  # what is not recognized is quoted as it is, line breaks too
        advice = "" if message.endswith((".", "?")) else f". See `{self.prog} --help`."
        self.exit(2, f"error: {message}{advice}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """Return what stands on the command line; an option that is not known ends it, with the one that is meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            (commands,) = (each for each in self._actions if isinstance(each, argparse._SubParsersAction))
            known = list(commands.choices[options.command]._option_string_actions)
            near = [match for each in unknown for match in get_close_matches(each.partition("=")[0], known, 1)]
            advice = f". Did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `tfprune`.

    Returns:
        A parser whose result has `command`, `json`, `debug` and what the command takes.

    Example:

    >>> build_parser().parse_args(["bench", "missing.tflite"])
    Traceback (most recent call last):
    ...
    SystemExit: 2
    """
    parser = Parser(
        prog="tfprune",
        usage="tfprune COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tfprune {version('tfprune')}")
    commands = parser.add_subparsers(prog="tfprune", title="commands", dest="command", metavar="COMMAND", required=True)
    for add in (_profile, _groups, _prune, _compress, _export, _bench, _compare, _report):
        add(commands)
    return parser


def _command(commands: "argparse._SubParsersAction[Parser]", name: str, summary: str, text: str) -> Parser:
    description, _, examples = text.partition("\n\n")
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on stdout")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from, and all logs")
    return parser


def _unsafe(parser: Parser) -> None:
    text = "run Python code that is stored in the model, such as that of a Lambda layer"
    parser.add_argument("--unsafe", action="store_true", help=text)


def _overwrite(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace what is written if it is there already")


def _profile(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "profile",
        "weights and operations of a model or .tflite file",
        """\
Count parameters, nonzeros and multiply-accumulates (MACs): of a Keras model
layer by layer; of a .tflite file in all, with its size and operators.

  tfprune profile model.keras
  tfprune profile model.tflite --json""",
    )
    parser.add_argument("model", metavar="MODEL", type=model_path, help="a .keras, .h5 or .tflite file")
    _unsafe(parser)


def _groups(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "groups",
        "which channels can be removed; what is frozen, and why",
        """\
List the channel groups of a model: channels that several layers share, and
that can only be removed together; and why others cannot be removed.

  tfprune groups model.keras""",
    )
    parser.add_argument("model", metavar="MODEL", type=keras_path, help=_MODEL)
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="count as free also channels that a layer mixes, such as LayerNormalization",
    )
    _unsafe(parser)


def _prune(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "prune",
        "remove the least important channels; no training",
        """\
Remove the least important channels of a model, and save a smaller, plain Keras
model. Expect a loss of accuracy: fine-tuning brings most of it back, and
--data, inputs like those of training, a part.

  tfprune prune model.keras small.keras --ratio 0.25
  tfprune prune model.keras small.keras --macs 0.5 --data x_train.npz""",
    )
    parser.add_argument("model", metavar="MODEL", type=keras_path, help=_MODEL)
    parser.add_argument("out", metavar="OUT.keras", type=Path, help="where the pruned model goes")
    how_much = parser.add_argument_group(
        "how much", "either --ratio or a budget; a budget below 1 is a share of the model's own, else a number"
    )
    how_much.add_argument("--ratio", metavar="R", type=fraction, help="remove this share of the channels")
    for name, what in (("macs", "operations"), ("parameters", "weights"), ("bytes", "bytes of float32 weights")):
        how_much.add_argument(f"--{name}", metavar="N", type=positive, help=f"keep at most so many {what}")
    parser.add_argument("--criterion", choices=("l2", "l1", "fpgm"), default="l2", help="what makes a channel count")
    parser.add_argument(
        "--ranking",
        choices=("local", "global", "structure"),
        default="local",
        help="which channels are ranked together: of a group, all, or of groups built alike",
    )
    parser.add_argument("--min-channels", metavar="N", type=count, default=1, help="leave every group so many")
    parser.add_argument(
        "--round-to", metavar="N", type=round_to, default=1, help="leave a multiple of so many; auto: of what is fast"
    )
    parser.add_argument("--exclude", metavar="LAYER", action="append", default=[], help="leave alone; can be repeated")
    parser.add_argument(
        "--data", metavar="DATA", type=data_path, help=f"measure BatchNormalization anew on this: {_DATA}"
    )
    _unsafe(parser)
    _overwrite(parser)


def _compress(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "compress",
        "prune, fine-tune, train for int8 and export, to a budget",
        """\
Prune a trained model to a budget, fine-tune it, train it for int8, and write a
checked .tflite file. What is done is kept in OUT.compress/: where it is cut
off, the same command goes on.

  tfprune compress model.keras --data train.npz --budget macs=0.5 --out model.tflite
  tfprune compress model.keras --data photos/ --budget file=300kB --out model.tflite""",
    )
    parser.add_argument("model", metavar="MODEL", type=keras_path, help=_MODEL)
    parser.add_argument("--out", metavar="OUT.tflite", type=Path, required=True, help="where the file goes")
    parser.add_argument(
        "--budget",
        metavar="NAME=N,...",
        type=budget,
        required=True,
        help=f"limits on {', '.join(SIZES)}; below 1, or with %%, a share of the dense model's; file=300kB, macs=1.5M",
    )
    _training_data(parser)
    training = parser.add_argument_group("training")
    training.add_argument(
        "--preset", choices=PRESETS, default="balanced", help="how much care it takes (default: balanced)"
    )
    training.add_argument("--epochs", metavar="N", type=count, help="epochs in all (default: the preset's 4, 12, 30)")
    training.add_argument(
        "--loss",
        choices=LOSSES,
        help="default: the one that the model is compiled with, or what labels and outputs say",
    )
    training.add_argument(
        "--learning-rate",
        metavar="R",
        type=positive,
        help="where fine-tuning starts (default: half of what the model is compiled with, or of Adam's 0.001)",
    )
    training.add_argument("--seed", metavar="N", type=seed, default=0, help="makes what is random repeatable")
    training.add_argument("--restart", action="store_true", help="delete what is in OUT.compress/, and start anew")
    _io(parser, ("int8", "uint8", "float32"), "int8")
    _unsafe(parser)
    _overwrite(parser)


def _training_data(parser: Parser) -> None:
    data = parser.add_argument_group(
        "data", f"{_DATA}, and labels y; or a folder of images, with a folder for each class"
    )
    text = "what the model was trained on; without labels, its own answers take their place"
    data.add_argument("--data", metavar="DATA", type=labelled_path, required=True, help=text)
    text = "what is measured on, with labels (default: a tenth of the data is set aside)"
    data.add_argument("--validation", metavar="DATA", type=labelled_path, help=text)
    data.add_argument(
        "--scale",
        choices=SCALES,
        help="of images: none leaves pixels at 0 to 255 (default), unit makes them 0 to 1, signed -1 to 1",
    )


def _io(parser: Parser, dtypes: tuple[str, ...], default: str | None) -> None:
    text = f"type of the file's inputs and outputs (default: {default or 'what the mode says'})"
    parser.add_argument("--io", "--io-dtype", choices=dtypes, default=default, help=text)


def _export(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "export",
        "write a .tflite file that was checked against the model",
        """\
Convert a model to a .tflite file with a batch of 1, compare the outputs of both,
and write the file only if they agree; else exit with 1.

  tfprune export model.keras model.tflite
  tfprune export model.keras model.tflite --quantize int8 --calibration x.npz
  tfprune export model.keras model.tflite --quantize dynamic --overwrite""",
    )
    parser.add_argument("model", metavar="MODEL", type=keras_path, help=_MODEL)
    parser.add_argument("out", metavar="OUT.tflite", type=Path, help="where the file goes")
    parser.add_argument("--quantize", choices=MODES, default="none", help="how numbers are stored (default: none)")
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        type=data_path,
        help=f"some hundred real inputs, scaled as in training; int8 and int16x8 need them: {_DATA}",
    )
    _io(parser, _IO_DTYPES, None)
    parser.add_argument("--sparse", action="store_true", help="store kernels with many zeros in less room")
    parser.add_argument("--tolerance", metavar="T", type=positive, help="largest relative error that passes")
    parser.add_argument("--max-samples", metavar="N", type=count, help="calibrate on at most so many (default: 500)")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="class names, one a line, for task libraries")
    for name, default in (("mean", 0.0), ("std", 1.0)):
        text = f"with --labels: the model reads (pixel - mean) / std (default: {default:g})"
        parser.add_argument(f"--{name}", metavar="X", type=float, nargs="+", help=text)
    _unsafe(parser)
    _overwrite(parser)


def _bench(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "bench",
        "latency and size of .tflite files, measured in turns",
        """\
Time .tflite files in turns, so that what slows the machine slows all of them.
The first file is what the others are compared with.

  tfprune bench dense.tflite pruned.tflite
  tfprune bench model.tflite --threads 4 --runs 500 --json""",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=tflite_path, help="a .tflite file")
    parser.add_argument("--threads", metavar="N", type=count, default=1, help="threads of the interpreter")
    parser.add_argument("--runs", metavar="N", type=count, default=100, help="timed runs of each (default: 100)")
    parser.add_argument("--warmup", metavar="N", type=count, default=10, help="runs before these (default: 10)")


def _compare(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "compare",
        "accuracy, size, operations and latency side by side",
        """\
Measure classifiers on the same data and machine. The first is what the others
are compared with. A Keras model stands with the size and latency of the float
.tflite file that it exports to.

  tfprune compare model.keras small.keras small.tflite --data test.npz
  tfprune compare a.tflite b.tflite --data test.npz --picture comparison.png""",
    )
    _several_models(parser)
    parser.add_argument(
        "--data", metavar="DATA.npz", type=data_path, required=True, help=f"{_DATA}, and labels y: integers or one-hot"
    )
    parser.add_argument("--picture", metavar="OUT", type=Path, help="draw it: a .png or .svg file")
    parser.add_argument("--runs", metavar="N", type=count, default=50, help="timed runs of each (default: 50)")
    parser.add_argument("--max-samples", metavar="N", type=count, help="use at most so many samples")
    _unsafe(parser)
    _overwrite(parser)


def _report(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = _command(
        commands,
        "report",
        "one HTML page about models: costs, layers, training",
        """\
Write one HTML page about models and files, that can be sent and read offline.

  tfprune report model.keras small.keras small.tflite --out report.html
  tfprune report model.keras --out report.html --data test.npz --history log.csv""",
    )
    _several_models(parser)
    parser.add_argument("--out", metavar="REPORT.html", type=Path, required=True, help="where the page goes")
    parser.add_argument("--data", metavar="DATA.npz", type=data_path, help=f"to measure accuracy: {_DATA}; labels y")
    parser.add_argument(
        "--history", metavar="HISTORY", type=history_path, help="training curves: .json, or the .csv of a CSVLogger"
    )
    _unsafe(parser)
    _overwrite(parser)


def _several_models(parser: Parser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", type=model_path, help="a .keras, .h5 or .tflite file")
