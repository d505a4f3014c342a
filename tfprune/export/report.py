"""What `export` wrote, and how close it is to the model."""

from dataclasses import dataclass

from rich.table import Table

from tfprune.export.operators import OperatorCount
from tfprune.export.verify import OutputError
from tfprune.tables import Report, new_table


@dataclass(frozen=True)
class ExportReport(Report):
    """What `export` wrote, and how close it is to the Keras model.

    Attributes:
        path: The file.
        quantize: The mode: None, `"float16"`, `"dynamic"` or `"int8"`.
        io_dtype: dtype of the file's float inputs and outputs.
        file_bytes: Size of the file.
        gzip_bytes: Its size compressed.
        operators: The operators in the file, with the dtype that they compute in.
        float_operators: Those left in float in an int8 file, but for the conversions at its doors.
        zero_fraction: Share of exact zeros among the stored kernels.
        verified_on: The samples that file and model were compared on.
        tolerance: Largest relative RMS error that would have passed.
        outputs: The differences, one entry per output.
    """

    path: str
    quantize: str | None
    io_dtype: str
    file_bytes: int
    gzip_bytes: int
    operators: tuple[OperatorCount, ...]
    float_operators: tuple[str, ...]
    zero_fraction: float
    verified_on: str
    tolerance: float
    outputs: tuple[OutputError, ...]

    def to_table(self) -> Table:
        """Return the report as a `rich.table.Table` of one row per fact."""
        table = new_table(f"Export: {self.path}", ["what"], ["value"])
        table.add_row("quantize", str(self.quantize))
        table.add_row("inputs and outputs", self.io_dtype)
        table.add_row("file size", f"{self.file_bytes:,} B")
        table.add_row("file size, gzip", f"{self.gzip_bytes:,} B")
        table.add_row("zeros in kernels", f"{self.zero_fraction:.1%}")
        table.add_row("operators", ", ".join(f"{op.count} {op.name} {op.dtype}" for op in self.operators))
        if self.quantize == "int8":
            table.add_row("left in float", ", ".join(self.float_operators) or "none")
        table.add_row("verified on", self.verified_on)
        for error in self.outputs:
            table.add_row(f"{error.name}: largest error", _with_lsb(error))
            table.add_row(f"{error.name}: mean error", f"{error.mean_abs_error:.3g}")
            table.add_row(f"{error.name}: relative RMS error", f"{error.relative_rms_error:.3g}")
            if error.top1_agreement is not None:
                table.add_row(f"{error.name}: top-1 agreement", f"{error.top1_agreement:.1%}")
        return table


def _with_lsb(error: OutputError) -> str:
    steps = "" if error.max_error_lsb is None else f" ({error.max_error_lsb:.1f} LSB)"
    return f"{error.max_abs_error:.3g}{steps}"
