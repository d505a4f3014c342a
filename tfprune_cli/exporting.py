"""`tfprune export`: a checked `.tflite` file."""

from argparse import Namespace
from pathlib import Path

from tfprune.common.tables import Report
from tfprune.data import load_model
from tfprune.exporting import ExportOptions, ImageMetadata
from tfprune.exporting import export as export_model
from tfprune_cli.data import read_data
from tfprune_cli.errors import InputError
from tfprune_cli.notes import note


def export(options: Namespace) -> Report:
    """Write a Keras model as a `.tflite` file."""
    if options.calibration is not None and options.quantize == "none":
        note("note: the file will be float32, and the data only checks it. --quantize int8 makes it small and fast.")
    data = None if options.calibration is None else read_data(options.calibration)
    metadata = (
        None if options.labels is None else _metadata(options.labels, options.mean or [0.0], options.std or [1.0])
    )
    model = load_model(options.model, unsafe=options.unsafe)
    return export_model(
        model,
        options.out,
        quantize=None if options.quantize == "none" else options.quantize,
        calibration=None if data is None else data.inputs(model),
        io_dtype=options.io,
        overwrite=options.overwrite,
        options=ExportOptions(
            sparse=options.sparse,
            metadata=metadata,
            tolerance=options.tolerance,
            max_samples=options.max_samples or 500,
        ),
    )


def _metadata(path: Path, mean: list[float], std: list[float]) -> ImageMetadata:
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read as text with one class name a line: {error}.") from error
    return ImageMetadata(labels=tuple(labels), mean=tuple(mean), std=tuple(std))
