"""What can be asked of `compress`, for those who want to choose after all."""

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from tfprune.common.checks import check_choice, check_count
from tfprune.granularity import Channel
from tfprune.granularity.channel import RoundTo
from tfprune.measure.scores import Metric

_IGNORED = ("metric", "max_drop", "overwrite", "restart", "progress")  # by the files of a training that goes on


_SWITCHES = ("informed", "repair", "teacher", "quantization_aware", "overwrite", "restart", "progress")

Preset: TypeAlias = Literal["fast", "balanced", "best"]


@dataclass(frozen=True)
class CompressOptions:
    """What `compress` does, part by part.

    Attributes:
        steps: In how many steps channels are removed, each followed by fine-tuning.
        informed: Whether data says which channels go, by Fisher information for the operations that they cost. Else
            the norms of kernels do, at one ratio for all groups.
        repair: Whether what is left is refitted by least squares before it is trained; see `tfprune.reconstruct`.
        teacher: Whether the dense model teaches in every training: its answers count nine tenths of the loss, labels
            one; see `tfprune.distill`. A step then runs both models, and takes up to half as long again.
        quantization_aware: Whether the model is trained with the rounding of int8. Else it is rounded afterwards.
        min_channels: Every channel group keeps at least so many channels.
        round_to: Every group keeps a multiple of so many channels; a group that would have to grow for that stays
            whole. `"auto"` takes the steps that kernels like, see `tfprune.granularity.Channel`; 1 is exact.
        learning_rate: The rate at which each fine-tuning starts; it falls to zero along a cosine. None for half of
            the one that the model is compiled with (of a schedule: of its highest rate).
        quantize_learning_rate: The same for quantization-aware training. None for a tenth of `learning_rate`.
        batch_size: Samples per batch, for arrays.
        metric: What validation measures, higher is better: None for top-1 accuracy; otherwise a
            `keras.metrics.Metric`, or a function of `y_true` and `y_pred` that returns a number.
        max_drop: By how much the metric may fall from the dense model to the file; the report says whether it did.
        io_dtype: dtype of the file's float inputs and outputs: `"int8"`, `"uint8"` or `"float32"`.
        seed: Makes the order of arrays, their split and what layers draw repeatable.
        overwrite: Whether to replace a file at `path`.
        restart: Whether to delete what an earlier, unfinished call left, instead of going on from there.
        progress: Whether to say on stderr how far the work is.

    Example:

    >>> CompressOptions(steps=2, max_drop=0.01).learning_rate is None
    True
    """

    steps: int = 1
    informed: bool = True
    repair: bool = True
    teacher: bool = True
    quantization_aware: bool = True
    min_channels: int = 1
    round_to: RoundTo = "auto"
    learning_rate: float | None = None
    quantize_learning_rate: float | None = None
    batch_size: int = 32
    metric: Metric | None = None
    max_drop: float | None = None
    io_dtype: str = "int8"
    seed: int = 0
    overwrite: bool = False
    restart: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "min_channels", "batch_size", *(() if self.round_to == "auto" else ("round_to",))):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "quantize_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
                raise ValueError(f"{name} must be a number above 0, or None for the default. Received: {rate!r}.")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False. Received: {getattr(self, name)!r}.")
        if self.max_drop is not None and not (isinstance(self.max_drop, int | float) and self.max_drop >= 0):
            raise ValueError(
                f"max_drop must be a number of at least 0, such as 0.01 for one point of accuracy. "
                f"Received: {self.max_drop!r}."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be a whole number from 0 to 2**31 - 1. Received: {self.seed!r}.")

    def granularity(self) -> Channel:
        """Return which numbers of channels may stay in a group."""
        return Channel(min_channels=self.min_channels, round_to=self.round_to)

    def settings(self) -> dict[str, object]:
        """Return what the files depend on, as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _IGNORED}


_PRESETS: dict[str, tuple[CompressOptions, int]] = {
    "fast": (CompressOptions(teacher=False), 4),
    "balanced": (CompressOptions(), 12),
    "best": (CompressOptions(steps=3), 30),
}
"""For each name the options, and in how many epochs."""


def preset(options: CompressOptions | Preset, epochs: int | None) -> tuple[CompressOptions, int]:
    """Return the options that a name stands for, and how many epochs are to be trained.

    Args:
        options: A name, or the options themselves.
        epochs: What the user says; None for what belongs to the name.

    Raises:
        TypeError: If `options` has another type.
        ValueError: If there is no such name.

    Example:

    >>> preset("best", None)[1], preset(CompressOptions(), None)[1]
    (30, 12)
    """
    if not isinstance(options, CompressOptions | str):
        raise TypeError(
            f"options must be {', '.join(map(repr, get_args(Preset)))} or a tfprune.CompressOptions. "
            f"Received: {type(options).__name__}."
        )
    if isinstance(options, str):
        check_choice("options", options, get_args(Preset))
        options, planned = _PRESETS[options]
    else:
        planned = _PRESETS["balanced"][1]
    return options, planned if epochs is None else epochs
