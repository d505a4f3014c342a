"""What `sensitivity` found, as a table, as a picture, and as numbers to prune by."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.markup import escape
from rich.table import Table

from tfprune.common.checks import check_not_negative
from tfprune.common.tables import Report, new_table
from tfprune.measure.heat_map import draw_heat_map
from tfprune.shrinking.widths import Widths

Parts = Literal["channels", "weights"]


@dataclass(frozen=True)
class SensitivityRow:
    """What the model is worth when only this is pruned.

    Attributes:
        name: The name of the channel group, or of the kernel.
        size: How many channels or weights it has.
        kept: How many are left at each ratio.
        scores: The score at each ratio.
    """

    name: str
    size: int
    kept: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity(Report):
    """How much a model minds if one channel group, or one kernel, is pruned and nothing else.

    Attributes:
        model: The name of the model.
        parts: Whether `"channels"` of groups were pruned, or single `"weights"` of kernels.
        metric: What the scores are: `"loss"`, `"divergence"` from the model's own answers, or the name of a metric.
        better: Whether a `"lower"` or a `"higher"` score is better; empty for a metric of which that is not known.
        ratios: The fractions that were pruned.
        dense: The score of the model as it is.
        baseline: The score of the model with nothing pruned, but recalibrated as all others; the same as `dense` if it
            has no BatchNormalization.
        num_samples: How many samples that was measured on.
        rows: One row for each group or kernel, in the order in which data flows.
        left_out: Why other groups were not pruned, by name.
    """

    model: str
    parts: Parts
    metric: str
    better: Literal["lower", "higher", ""]
    ratios: tuple[float, ...]
    dense: float
    baseline: float
    num_samples: int
    rows: tuple[SensitivityRow, ...]
    left_out: Mapping[str, str]

    def harm(self) -> np.ndarray:
        """Return how much worse each score is than the baseline, of shape (rows, ratios); negative if it is better.

        Of a metric of which it is not known what is better, how far it moved either way.
        """
        change = np.array([row.scores for row in self.rows]) - self.baseline
        return np.abs(change) if not self.better else -change if self.better == "higher" else change

    def suggest(self, max_harm: float) -> dict[str, float]:
        """Return for each group or kernel the largest ratio up to which the model gets no more than so much worse.

        Each was pruned alone: together they harm more, as a rule about the sum of what each does.

        Args:
            max_harm: How much worse the score may be than the baseline, in units of the score.

        Returns:
            One of `ratios`, or 0.0 where already the smallest does more harm, by name.

        Raises:
            ValueError: If `max_harm` is not a number of at least 0.
        """
        bearable = np.cumprod(self.harm() <= check_not_negative("max_harm", max_harm), axis=1).sum(axis=1)
        ratios = (0.0, *self.ratios)
        return {row.name: ratios[count] for row, count in zip(self.rows, bearable.tolist(), strict=True)}

    def widths(self, max_harm: float) -> Widths:
        """Return the suggested ratios as numbers of channels, which `tfprune.prune_channels` takes.

        Args:
            max_harm: See `suggest`.

        Returns:
            The width of each group.

        Raises:
            ValueError: If single weights were pruned, or `max_harm` is not a number of at least 0.
        """
        if self.parts != "channels":
            raise ValueError("Single weights were pruned, and widths are numbers of channels. Use suggest(max_harm).")
        suggested = self.suggest(max_harm)
        kept = {row.name: dict(zip((0.0, *self.ratios), (row.size, *row.kept), strict=True)) for row in self.rows}
        return Widths({name: kept[name][ratio] for name, ratio in suggested.items()})

    def to_table(self) -> Table:
        """Return one row per group or kernel, with the score at each ratio; what was left out comes last."""
        same = self.dense == self.baseline
        measured = f"{self.dense:.4g}" if same else f"{self.dense:.4g}, recalibrated {self.baseline:.4g}"
        title = f"Sensitivity of {self.model}: {self.metric} on {self.num_samples:,} samples, dense {measured}"
        what, note = ("group", "left out because") if self.parts == "channels" else ("kernel", "")
        texts = [what, note] if self.left_out else [what]
        table = new_table(escape(title), texts, [self.parts, *(f"-{ratio:.0%}" for ratio in self.ratios)])
        blank = [""] * (len(texts) - 1)
        for row in self.rows:
            table.add_row(escape(row.name), *blank, f"{row.size:,}", *(f"{score:.4g}" for score in row.scores))
        for name, reason in self.left_out.items():
            table.add_row(escape(name), escape(reason), "", *[""] * len(self.ratios))
        return table

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw how much worse the model gets as a heat map: a row per group or kernel, a column per ratio.

        Critical ones are dark, and those that hardly matter are light.

        Args:
            path: Where the picture goes; ends in `.svg` or `.png`.

        Returns:
            The path.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the path ends in something else.
            OSError: If it cannot be written.
        """
        columns = [f"-{ratio:.0%}" for ratio in self.ratios]
        title = {"lower": f"rise of the {self.metric}", "higher": f"fall of the {self.metric}"}
        label = title.get(self.better, f"change of {self.metric}")
        return draw_heat_map(path, [row.name for row in self.rows], columns, self.harm(), label)
