"""What `export` wrote, and how close it is to the model."""

from dataclasses import dataclass

from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.exporting.modes import MODES
from tfprune.exporting.operators import OperatorCount
from tfprune.exporting.reasons import FloatOperator
from tfprune.exporting.verify import OutputError


@dataclass(frozen=True)
class ExportReport(Report):
    """What `export` wrote, and how close it is to the Keras model.

    Attributes:
        path: The file.
        quantize: The mode: None, `"float16"`, `"dynamic"`, `"int8"`, `"int16x8"`, `"int8_weights"` or `"int4_weights"`.
        io_dtype: dtype of the file's inputs and outputs that are real numbers, as the file has it; if they differ, such
            as `"float32 in, int8 out"`.
        file_bytes: Size of the file.
        gzip_bytes: Its size compressed.
        operators: The operators in the file, with the dtype that they compute in.
        float_operators: Those left in float in a file that should compute in integers, and why; conversions
            (`QUANTIZE`, `DEQUANTIZE`), such as those at its inputs and outputs, are not counted.
        zero_fraction: Share of exact zeros among the stored kernels.
        zeros_kept: Share of the model's zero weights that are zero in the file; None if it has none.
        sparse: Whether kernels with many zeros are stored sparse.
        verified_on: The samples that file and model were compared on.
        tolerance: Largest relative RMS error that would have passed.
        outputs: The differences, one entry per output.
        min_runtime: The oldest version of TensorFlow Lite that has all operators of the file; None if not known.
    """

    path: str
    quantize: str | None
    io_dtype: str
    file_bytes: int
    gzip_bytes: int
    operators: tuple[OperatorCount, ...]
    float_operators: tuple[FloatOperator, ...]
    zero_fraction: float
    zeros_kept: float | None
    sparse: bool
    verified_on: str
    tolerance: float
    outputs: tuple[OutputError, ...]
    min_runtime: str | None = None

    def to_table(self) -> Table:
        """Return the report as a `rich.table.Table` of one row per fact."""
        table = new_table(f"Export: {self.path}", ["what"], ["value"])
        table.add_row("quantize", str(self.quantize))
        table.add_row("inputs and outputs", self.io_dtype)
        table.add_row("file size", f"{self.file_bytes:,} B")
        table.add_row("file size, gzip", f"{self.gzip_bytes:,} B")
        table.add_row("zeros in kernels", f"{self.zero_fraction:.1%}{' (stored sparse)' if self.sparse else ''}")
        if self.zeros_kept is not None:
            table.add_row("zeros of the model kept", f"{self.zeros_kept:.1%}")
        table.add_row("operators", ", ".join(f"{op.count} {op.name} {op.dtype}" for op in self.operators))
        if MODES[self.quantize].is_integer and not self.float_operators:
            table.add_row("left in float", "none")
        for operator in self.float_operators:
            table.add_row(f"in float: {operator.count} {operator.name}", operator.reason)
        if self.min_runtime is not None:
            table.add_row("runs from TensorFlow Lite", f"{self.min_runtime} on")
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
