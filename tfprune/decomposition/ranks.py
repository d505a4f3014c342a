"""Which layers become several, how, and with which ranks: a table, chosen before anything is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.decomposition.base import Method


@dataclass(frozen=True)
class LayerRanks:
    """One layer with a kernel.

    Attributes:
        name: Its name, behind those of the models that it lies in.
        method: How it is decomposed; None if it stays.
        ranks: With which ranks.
        macs: Multiply-accumulates of the layer for one sample; where sizes are open, for one output position.
        new_macs: Those of the layers in its place.
        parameters: Weights of its kernel.
        new_parameters: Weights of the kernels in its place.
        error: Relative error of the kernel in the Frobenius norm; with data, that of what comes out of the layer.
        stays: Why it stays; empty if it does not.
    """

    name: str
    method: Method | None = None
    ranks: tuple[int, ...] = ()
    macs: int = 0
    new_macs: int = 0
    parameters: int = 0
    new_parameters: int = 0
    error: float = 0.0
    stays: str = ""


@dataclass(frozen=True)
class ChosenRanks(Report):
    """How `tfprune.decompose` takes a model apart; printed as a table.

    Attributes:
        model: The model's name.
        layers: One row for each layer with a kernel, in the order of the calls; those that nothing could be done with
            come last.
    """

    model: str
    layers: tuple[LayerRanks, ...]

    @property
    def replaced(self) -> tuple[LayerRanks, ...]:
        """The layers that become several."""
        return tuple(row for row in self.layers if row.method is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the rows, with methods by their names."""
        found = super().to_dict()
        for row, own in zip(found["layers"], self.layers, strict=True):
            row["method"] = None if own.method is None else str(own.method)
        return found

    def to_table(self) -> Table:
        """Return one row per layer, and the sums of those that can be decomposed."""
        numbers = ["ranks", "MACs", "before", "parameters", "before", "relative error"]
        table = new_table(f"Ranks of {self.model}", ["layer", "method"], numbers)
        for row in self.layers:
            counts = row.new_macs, row.macs, row.new_parameters, row.parameters
            cells = [f"{count:,}" if row.macs else "" for count in counts]
            error = f"{row.error:.3f}" if row.method else ""
            how = str(row.method) if row.method else f"stays: {row.stays}"
            table.add_row(row.name, how, " x ".join(map(str, row.ranks)), *cells, error)
        sums = [
            sum(getattr(row, name) for row in self.layers)
            for name in ("new_macs", "macs", "new_parameters", "parameters")
        ]
        table.add_section()
        table.add_row("total", "", "", *(f"{count:,}" for count in sums), "")
        return table


@dataclass(frozen=True)
class VBMF:
    """Ranks by variational Bayes: as many as stand out of the noise in a kernel, which is estimated too.

    It is careful with noise and careless with the network: on trained layers it often keeps too little, and a
    multiplier above 1 keeps more. A layer in which it finds nothing but noise stays.

    Reference: Nakajima et al., Global Analytic Solution of Fully-observed Variational Bayesian Matrix Factorization,
    JMLR 2013, https://www.jmlr.org/papers/v14/nakajima13a.html

    Attributes:
        multiplier: What the ranks are multiplied by; rounded, and at most the full ranks.

    Example:

    >>> VBMF(multiplier=1.5)
    VBMF(multiplier=1.5)
    """

    multiplier: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.multiplier, bool) or not isinstance(self.multiplier, int | float) or self.multiplier <= 0:
            raise ValueError(f"multiplier must be a number above 0. Received: {self.multiplier!r}.")


RanksByHand = Mapping[keras.layers.Layer, int | Sequence[int]] | Callable[[keras.layers.Layer], Any]
"""The rank of each layer, or its two ranks for `Tucker`; None, or left out, for layers that stay."""
