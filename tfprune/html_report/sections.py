"""From facts to what stands on the page: sections of plots and tables, each with a sentence that says what it shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from tfprune.callbacks.monitors.layer_density import LOG_PREFIX
from tfprune.exporting.export_report import ExportReport
from tfprune.graph import ChannelGroups
from tfprune.html_report import plots
from tfprune.html_report.facts import ExportFacts, Facts, ModelFacts
from tfprune.html_report.matching import Row, matched
from tfprune.html_report.plots import Plot, short

_SHORT_TABLE = 12
_DENSE = 0.9995  # below, it shows in the numbers
_MINUS, _DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it is called.
        headers: The names of its columns.
        rows: Its cells, whose lines stay lines.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
        note: What else there is to say.
        folded: Whether it shows only its title until one opens it.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Card:
    """What is to be remembered of one model: numbers, and what they are."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page; the sentence says what it shows."""

    name: str
    title: str
    sentence: str
    cards: tuple[Card, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()


def sections(facts: Facts) -> list[Section]:
    """Return the parts of the page for which there is something to show."""
    makers: list[Callable[[Facts], Section | None]] = [
        _summary, _costs, _layers, _training, _schedules, _groups, _exports
    ]  # fmt: skip
    return [section for section in (make(facts) for make in makers) if section is not None]


def _summary(facts: Facts) -> Section:
    baseline = facts.models[0].name
    if facts.comparison is None:
        sentence = f"How large the models are, beside {baseline}. Without data, nothing is measured."
        return Section("summary", "Summary", sentence, _size_cards(facts.models), tables=(_sizes(facts.models),))
    first, *others = facts.comparison.models
    cards = tuple(
        Card(
            row.name,
            (
                (f"{(row.score - first.score) * 100:+.2f} pp".replace("-", _MINUS), "accuracy"),
                *_share("file size", row.file_bytes, first.file_bytes),
                *_share("MACs", row.macs, first.macs),
                *_share("latency", row.latency.ratio, 1),
            ),
        )
        for row in others
    )
    sentence = (
        f"What the models are worth on {facts.comparison.num_samples:,} samples, and what they cost on the machine "
        f"that made this page, beside {baseline}. A Keras model stands for the float32 file that it exports to."
    )
    return Section("summary", "Summary", sentence, cards, tables=(_from_rich(facts.comparison.to_table()),))


def _costs(facts: Facts) -> Section | None:
    if facts.comparison is None:
        return None
    sentence = "Each point is a model: the higher and the further left, the better. The baseline has a ring."
    return Section("costs", "Accuracy and cost", sentence, plots=tuple(plots.costs(facts.comparison)))


def _layers(facts: Facts) -> Section | None:
    models = [model for model in facts.models if model.macs]
    if not models:
        return None
    widths, macs = ({model.name: getattr(model, key) for model in models} for key in ("widths", "macs"))
    densities = {model.name: model.densities for model in models if model.densities}
    rows = matched([model.layer_kinds for model in models])
    drawn = [
        _bars("width", "Channels that come out of each layer", rows, widths, "{:,.0f}".format),
        _bars("macs", "Multiply-accumulates (MACs) of each layer", rows, macs, short),
    ]
    sentence = "Every layer that multiplies; a layer without a bar is not in that model."
    if len(models) > 1:
        sentence += " Layers of the same kind at the same place share a row, which has the name in the first model."
    if any(density < _DENSE for each in densities.values() for density in each.values()):
        kernels = matched([model.kernel_kinds for model in models if model.densities])
        drawn.append(_bars("density", "Density of each trainable kernel", kernels, densities, "{:.1%}".format))
        sentence += " Density is the share of weights that are alive."
    elif densities:
        sentence += " All trainable kernels are dense."
    if len(models) < len(facts.models):
        sentence += " Files do not keep their layers."
    headers = ("layer", *(f"{model.name}: {what}" for model in models for what in ("channels", "MACs")))
    cells = tuple((_names(row), *_cells(row, models)) for row in rows)
    table = Table("All layers as numbers", headers, cells, folded=True)
    return Section("layers", "Layer by layer", sentence, plots=tuple(drawn), tables=(table,))


def _bars(
    key: str, title: str, rows: list[Row], models: Mapping[str, Mapping[str, float]], label: Callable[[float], str]
) -> Plot:
    columns = zip(*(row.names for row in rows), strict=True)
    values = {
        model: [known.get(name or "") for name in column]
        for (model, known), column in zip(models.items(), columns, strict=True)
    }
    return plots.bars(key, title, [row.name for row in rows], values, label)


def _names(row: Row) -> str:
    """Return the name of a row, and below it those that the layer has in other models."""
    others = dict.fromkeys(name for name in row.names if name not in (None, row.name))
    return "\n".join([row.name, *(f"({name})" for name in others)])


def _cells(row: Row, models: list[ModelFacts]) -> list[str]:
    return [
        _count(values.get(name or ""))
        for model, name in zip(models, row.names, strict=True)
        for values in (model.widths, model.macs)
    ]


def _training(facts: Facts) -> Section | None:
    if not facts.history:
        return None
    densities = {
        key.removeprefix(LOG_PREFIX): values for key, values in facts.history.items() if key.startswith(LOG_PREFIX)
    }
    values = {key: values for key, values in facts.history.items() if not key.startswith(LOG_PREFIX)}
    drawn = [*(plots.curves(values) if values else []), *([plots.density_map(densities)] if densities else [])]
    epochs = max(len(each) for each in facts.history.values())
    sentence = f"What was logged after each of {epochs:,} epochs. A curve with fewer values is spread over all of them."
    return Section("training", "Training", sentence, plots=tuple(drawn))


def _schedules(facts: Facts) -> Section | None:
    if not facts.schedules:
        return None
    drawn = [plots.schedule(name, each, number) for number, (name, each) in enumerate(facts.schedules.items(), 1)]
    sentence = "Which value holds at which time; a dot is an update of the masks."
    return Section("schedules", "Schedule", sentence, plots=tuple(drawn))


def _groups(facts: Facts) -> Section | None:
    models = [(model.name, model.groups) for model in facts.models if model.groups is not None]
    if not models:
        return None
    sentence = (
        "Channels that several layers share go together or not at all, and some have to stay, for the reason given."
    )
    tables = tuple(_group_table(name, groups, index > 0) for index, (name, groups) in enumerate(models))
    return Section("groups", "Channel groups", sentence, tables=tables)


def _exports(facts: Facts) -> Section | None:
    if not facts.exports:
        return None
    sentence = "What is in the .tflite files, and which operators compute in float where the others use integers."
    return Section("exports", "Operators", sentence, tables=tuple(_export_table(each) for each in facts.exports))


def _group_table(name: str, groups: ChannelGroups, folded: bool) -> Table:
    found = groups.to_dict()["groups"]
    channels, after = (sum(row[key] for row in found) for key in ("channels", "channels_after_shrink"))
    note = (
        f"{len(groups.free)} of {len(groups)} groups are free: {sum(each.size for each in groups.free):,} of "
        f"{channels:,} channels may be removed. {channels - after:,} are dead as the weights are now."
    )
    rows = tuple(
        (
            row["name"],
            *(", ".join(row[key]) for key in ("made_by", "read_by")),
            f"no: {'; '.join(row['frozen'])}" if row["frozen"] else "yes",
            *(_count(row[key]) for key in ("channels", "channels_after_shrink")),
        )
        for row in found
    )
    headers = ("group", "made by", "read by", "removable", "channels", "after shrink")
    return Table(name, headers, rows, 4, note, folded or len(rows) > _SHORT_TABLE)


def _export_table(export: ExportFacts) -> Table:
    note = "" if export.report is None else _verified(export.report)
    headers: tuple[str, ...] = ("operator", "computes in", "count")
    rows: list[tuple[str, ...]] = [(each.name, each.dtype, _count(each.count)) for each in export.operators]
    if not export.in_float:
        return Table(export.name, headers, tuple(rows), 2, note)
    why: dict[str, list[str]] = {}
    for operator in export.in_float:
        why.setdefault(operator.name, []).append(f"{operator.count} of them: {operator.reason}")
    rows = [
        (name, dtype, "\n".join(why.get(name, [])) if "float" in dtype else "", count) for name, dtype, count in rows
    ]
    return Table(export.name, (*headers[:2], "left in float because", "count"), tuple(rows), 3, note)


def _verified(report: ExportReport) -> str:
    sizes = f"{report.file_bytes:,} B, {report.gzip_bytes:,} B by gzip"
    errors = ", ".join(f"{error.relative_rms_error:.3g} ({error.name})" for error in report.outputs)
    left = " No operator is left in float." if report.quantize and not report.float_operators else ""
    return (
        f"{report.quantize or 'float32'}, {sizes}. On {report.verified_on}, the relative RMS error against the Keras "
        f"model is {errors}.{left}"
    )


def _sizes(models: tuple[ModelFacts, ...]) -> Table:
    first = models[0]
    rows = tuple(
        (
            model.name,
            *(
                _with_ratio(value, base, model is first)
                for value, base in (
                    *zip(model.costs, first.costs, strict=True),
                    (model.file_bytes, first.file_bytes),
                )
            ),
        )
        for model in models
    )
    return Table("Sizes", ("model", "weights", "nonzero", "MACs", "file, B"), rows, note="x: times the first row.")


def _size_cards(models: tuple[ModelFacts, ...]) -> tuple[Card, ...]:
    first = models[0]
    return tuple(
        Card(
            model.name,
            (
                *_share("weights", model.costs.parameters, first.costs.parameters),
                *_share("nonzero weights", model.costs.nonzeros, first.costs.nonzeros),
                *_share("MACs", model.costs.macs, first.costs.macs),
                *_share("file size", model.file_bytes, first.file_bytes),
            ),
        )
        for model in models[1:]
    )


def _share(what: str, value: float | None, base: float | None) -> tuple[tuple[str, str], ...]:
    """Return one fact, or none where a number is not known."""
    return () if value is None or not base else ((f"x {value / base:.2f}", what),)


def _with_ratio(value: int | None, base: int | None, alone: bool) -> str:
    ratio = "" if alone or value is None or not base else f"\nx {value / base:.2f}"
    return _count(value) + ratio


def _count(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def _from_rich(table: RichTable) -> Table:
    cells = [[Text.from_markup(str(cell)).plain for cell in column.cells] for column in table.columns]
    headers = tuple(Text.from_markup(str(column.header)).plain for column in table.columns)
    words = sum(column.justify == "left" for column in table.columns)
    return Table(str(table.title), headers, tuple(zip(*cells, strict=True)), words, str(table.caption or ""))
