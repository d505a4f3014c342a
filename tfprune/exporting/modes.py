"""The modes of `export` in one table: what each stores, needs, allows, and how close to the model it has to be."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Mode:
    """One value of `quantize`.

    Attributes:
        io_dtypes: dtypes that float inputs and outputs of the file may have; the first is the default.
        tolerance: Largest RMS error relative to the standard deviation of the outputs.
        step: Step of the number format relative to a value, for outputs that hardly vary around a large mean: there,
            an error of one step says nothing. An integer file states its step itself: the output's scale, or 1 LSB.
        bytes_per_weight: The least that the converter writes per weight in its largest file on the way.
        optimizes: Whether the converter quantizes.
        types: What the converter may store besides float32.
        operator_sets: Kernels that the converter chooses from.
        num_levels: How many values an activation can have; their ranges are measured on samples. 0: floats.
        is_integer: Whether operators are expected to compute in integers.
        weight_bits: What `ai-edge-quantizer` stores weights in; 0 if it is not used.
        no_sparsity: Why weights of this mode cannot be stored sparse; empty if they can.
    """

    io_dtypes: tuple[str, ...]
    tolerance: float
    step: float
    bytes_per_weight: float
    optimizes: bool = False
    types: tuple[tf.DType, ...] = ()
    operator_sets: tuple[tf.lite.OpsSet, ...] = ()
    num_levels: int = 0
    is_integer: bool = False
    weight_bits: int = 0
    no_sparsity: str = ""

    @property
    def is_calibrated(self) -> bool:
        """Whether ranges are measured on samples."""
        return self.num_levels > 0

    @property
    def quantizes(self) -> bool:
        """Whether anything is stored as whole numbers with a scale."""
        return (self.optimizes and not self.types) or self.weight_bits > 0


_FLOAT = ("float32",)
_WEIGHTS_SPARSITY = "its weights are quantized in the finished file, and a quantizer cannot read sparse ones"

# Tolerances were measured on small networks (MLPs, convolutional nets with and without residuals, swish/gelu/
# LayerNormalization, a regression and an autoencoder; untrained, and trained on MNIST-5k). Worst honest file: float
# 2e-6 (5e-4 on a random InceptionV3, whose depth multiplies rounding), float16 9e-4, dynamic 0.027 (it also quantises
# activations, at run time), int8 0.098; on the five that all of them convert: int16x8 0.014, int8 weights 0.017, int4
# weights 0.18. Broken files (other weights, calibration data scaled by 255 either way) start at 0.97. The limits lie
# between the two, nearer to the honest side, and with room for deeper networks.
MODES: dict[str | None, Mode] = {
    None: Mode(_FLOAT, tolerance=2e-3, step=2.0**-20, bytes_per_weight=4),
    "float16": Mode(_FLOAT, tolerance=5e-3, step=2.0**-11, bytes_per_weight=2, optimizes=True, types=(tf.float16,)),
    "dynamic": Mode(
        _FLOAT,
        tolerance=0.1,
        step=2.0**-8,
        bytes_per_weight=1,
        optimizes=True,
        no_sparsity="LiteRT 2.3 does not run a file whose operators quantize at run time and read sparse weights",
    ),
    "int8": Mode(
        ("int8", "uint8", "float32"),
        tolerance=0.25,
        step=0.0,
        bytes_per_weight=4,
        optimizes=True,
        operator_sets=(tf.lite.OpsSet.TFLITE_BUILTINS_INT8,),
        num_levels=2**8,
        is_integer=True,
    ),
    "int16x8": Mode(
        ("float32", "int16"),
        tolerance=0.1,
        step=0.0,
        bytes_per_weight=4,
        optimizes=True,
        # Few operators have 16-bit kernels: the others may stay in float, and the report says so.
        operator_sets=(
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ),
        num_levels=2**16,
        is_integer=True,
        no_sparsity="TensorFlow's converter gives such a file biases that no runtime reads",
    ),
    "int8_weights": Mode(
        _FLOAT, tolerance=0.1, step=2.0**-8, bytes_per_weight=4, weight_bits=8, no_sparsity=_WEIGHTS_SPARSITY
    ),
    "int4_weights": Mode(
        _FLOAT, tolerance=0.5, step=2.0**-4, bytes_per_weight=4, weight_bits=4, no_sparsity=_WEIGHTS_SPARSITY
    ),
}

# A Keras model that computes in half precision differs from its float32 file by its own rounding.
HALF_PRECISION_TOLERANCE = 0.05
