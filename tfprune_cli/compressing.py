"""`tfprune compress`: from a trained model to a smaller, checked int8 file."""

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.tables import Report
from tfprune.drivers.compression import compress as compress_model
from tfprune.drivers.compression.compress_options import preset
from tfprune.shrinking.budget import Budget
from tfprune_cli.compiling import compile_for, load_compiled, metric_for
from tfprune_cli.data import DataFile, read_data
from tfprune_cli.errors import InputError
from tfprune_cli.images import ImageFolder


def compress(options: Namespace) -> Report:
    """Prune, fine-tune, train for int8 and export."""
    data = _open(options.data, options.scale)
    others = None if options.validation is None else _open(options.validation, options.scale)
    if isinstance(data, ImageFolder) and isinstance(others, ImageFolder):
        _check_same_classes(data, others)
    model = load_compiled(options.model, options.loss, options.unsafe)
    x, y = data.read(model)
    compile_for(model, y, options.loss)
    chosen, epochs = preset(options.preset, options.epochs)
    return compress_model(
        model,
        x if y is None else (x, y),
        budget=Budget(**options.budget),
        path=options.out,
        validation=None if others is None else _labelled(others, options.validation, model),
        epochs=epochs,
        options=dataclasses.replace(
            chosen,
            learning_rate=options.learning_rate,
            metric=metric_for(model),
            io_dtype=options.io,
            seed=options.seed,
            overwrite=options.overwrite,
            restart=options.restart,
        ),
    )


def _open(path: Path, scale: str | None) -> DataFile | ImageFolder:
    return ImageFolder(path, scale or "none") if path.is_dir() else read_data(path)


def _check_same_classes(data: ImageFolder, others: ImageFolder) -> None:
    if data.classes and others.classes and data.classes != others.classes:
        raise InputError(
            f"'{data.path}' and '{others.path}' have folders for different classes, whose order numbers them: "
            f"{data.classes} and {others.classes}. Give both the same, also those without images."
        )


def _labelled(data: DataFile | ImageFolder, path: Path, model: keras.Model) -> tuple[Any, np.ndarray]:
    x, y = data.read(model)
    if y is None:
        raise InputError(f"'{path}' has no labels, and what is measured on needs them. Leave --validation out.")
    return x, y
