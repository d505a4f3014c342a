"""What is in a `.tflite` file, as a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tfprune.common.files import gzip_size
from tfprune.common.tables import Report, new_table
from tfprune.exporting.operators import OperatorCount, count_operators
from tfprune.measure.file_costs import file_costs
from tfprune.tflite.unpacking import TFLiteFile, type_name


@dataclass(frozen=True)
class SignatureTensor:
    """A signature input or output of a file, as it is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class FileProfile(Report):
    """Size, contents and costs of a `.tflite` file; MACs are None if loops or custom operators hide them."""

    path: str
    file_bytes: int
    gzip_bytes: int
    parameters: int
    nonzeros: int
    macs: int | None
    inputs: tuple[SignatureTensor, ...]
    outputs: tuple[SignatureTensor, ...]
    operators: tuple[OperatorCount, ...]

    def to_table(self) -> Table:
        """Return one row per fact."""
        table = new_table(f"Profile of {Path(self.path).name}", ["what"], ["value"])
        table.add_row("file size", f"{self.file_bytes:,} B")
        table.add_row("file size, gzip", f"{self.gzip_bytes:,} B")
        table.add_row("parameters", f"{self.parameters:,}")
        table.add_row("nonzeros", f"{self.nonzeros:,}")
        table.add_row("MACs", "?" if self.macs is None else f"{self.macs:,}")
        table.add_section()
        for what, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor in tensors:
                table.add_row(f"{what} {tensor.name}", f"{' x '.join(map(str, tensor.shape))} {tensor.dtype}")
        table.add_section()
        for operator in self.operators:
            table.add_row(f"{operator.name} {operator.dtype}", str(operator.count))
        return table


def profile_file(path: Path) -> FileProfile:
    """Return what is in a `.tflite` file, which is read but not run.

    Args:
        path: The file.

    Returns:
        The report.

    Raises:
        ValueError: If the file is damaged.
    """
    file = TFLiteFile.read(path)
    try:
        model = file.model
        return FileProfile(
            str(path),
            len(file.content),
            gzip_size(file.content),
            *file_costs(file),
            inputs=_signature_tensors(model, "inputs"),
            outputs=_signature_tensors(model, "outputs"),
            operators=count_operators(file),
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # what is there, but not where it belongs
        raise ValueError(f"'{path}' is cut short or damaged: {error}. Copy or export it again.") from error


def _signature_tensors(model: Any, side: str) -> tuple[SignatureTensor, ...]:
    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    # The names that a program uses are the signature's; the graph has its own.
    maps = (getattr(signatures[0], side) or []) if len(signatures) == 1 else []
    names = {each.tensorIndex: each.name for each in maps}
    found = []
    for index in getattr(graph, side) if getattr(graph, side) is not None else []:
        tensor = graph.tensors[index]
        name = names.get(index, tensor.name) or b"?"
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        found.append(SignatureTensor(name.decode(errors="replace"), shape, type_name(tensor)))
    return tuple(found)
