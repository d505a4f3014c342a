"""What a model takes: names, shapes and dtypes of its inputs, and data in their order."""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfprune.data.forms import as_array, as_arrays, is_array

Samples: TypeAlias = dict[str, np.ndarray]
"""Arrays `(samples, ...)` by input name, as a file has it, in the order of the inputs."""

_KINDS = {"f": "fiub", "V": "fiub", "i": "iu", "u": "iu", "b": "b", "O": "OSU"}
"""Which kinds of NumPy dtypes an input of a kind takes; "V" has those that NumPy does not know, such as bfloat16."""


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        name: What it is called; in a `.tflite` file that `export` writes too.
        shape: The shape of a sample; None where any size will do.
        dtype: What goes in; None if that is not known.
        aliases: What else a dict may call it: its name in Keras, or its key where the model takes a dict.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype | None
    aliases: tuple[str, ...] = ()

    def fitted(self, array: np.ndarray, owner: str, argument: str) -> np.ndarray:
        """Return an array whose shape and kind of dtype fit, with an axis of size 1 added or removed as `fit` does."""
        forms = [array]
        if array.shape[-1:] == (1,):
            forms.append(array[..., 0])
        if self.shape[-1:] == (1,):
            forms.append(array[..., None])
        fitting = [form for form in forms if self._has_shape(form.shape)]
        if not fitting:
            advice = " Batch the dataset: data.batch(32); stack samples: np.stack(samples)."
            raise ValueError(
                f"{argument} does not fit {owner!r}: expected arrays of shape {_shape(self.shape)} for input "
                f"{self.name!r}. Received: {array.shape}.{advice if self._has_shape((1, *array.shape)) else ''}"
            )
        array = fitting[0]
        if self.dtype is not None and array.dtype.kind not in _KINDS[self.dtype.kind] and array.dtype != self.dtype:
            raise ValueError(
                f"{argument} does not fit {owner!r}: input {self.name!r} is {self.dtype}. Received: {array.dtype}. "
                "Convert it first."
            )
        return array

    def _has_shape(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) + 1 and all(
            want in (None, size) for want, size in zip(self.shape, shape[1:], strict=True)
        )

    def cast(self, array: np.ndarray, argument: str) -> np.ndarray:
        """Return an array in the dtype of the input, whose values are finite, or raise."""
        cast = array if self.dtype is None or self.dtype.kind == "O" else array.astype(self.dtype, copy=False)
        check_finite(cast, argument, f"input {self.name!r}")
        return cast


@dataclass(frozen=True)
class Inputs:
    """All inputs of a model or a file.

    Attributes:
        owner: What the model is called.
        each: The inputs in the order of `model.inputs`; None of a model with a `call` of its own that does not tell.
        structure: What the model is called with: any structure of one leaf per input.
    """

    owner: str
    each: tuple[Input, ...] | None
    structure: Any

    @property
    def names(self) -> list[str]:
        """What the inputs are called."""
        return [one.name for one in self.each or ()]

    @property
    def num_inputs(self) -> int | None:
        """How many there are."""
        return None if self.each is None else len(self.each)

    def arranged(self, x: Any, argument: str) -> Any:
        """Return data in the structure that the model is called with, checked but for its values.

        Args:
            x: An array, or arrays as a list in the order of the inputs or a dict by their names, of which further
                entries are left out.
            argument: What the data is called, for messages.

        Returns:
            NumPy arrays, packed.

        Raises:
            TypeError: If something is no array.
            ValueError: If number, names, shapes or dtypes do not fit.
        """
        if self.each is None:
            return as_arrays(x, argument)
        leaves = self._leaves(x, argument)
        return self.pack(
            one.fitted(as_array(leaf, argument), self.owner, argument)
            for one, leaf in zip(self.each, leaves, strict=True)
        )

    def cast(self, packed: Any, argument: str) -> Any:
        """Return what `arranged` returned, or some rows of it, in the dtypes of the inputs, or raise if not finite."""
        if self.each is None:
            for array in keras.tree.flatten(packed):
                check_finite(array, argument, "x")
            return packed
        flat = keras.tree.flatten(packed)
        return self.pack(one.cast(array, argument) for one, array in zip(self.each, flat, strict=True))

    def pack(self, leaves: Iterable[Any]) -> Any:
        """Return one leaf for each input in the structure that the model is called with."""
        return keras.tree.pack_sequence_as(self.structure, list(leaves))

    def samples(self, packed: Any) -> Samples:
        """Return packed arrays by input name."""
        return dict(zip(self.names, keras.tree.flatten(packed), strict=True))

    def picked(self, arrays: Mapping[str, Any], source: str) -> Any:
        """Return what goes into the model out of many named arrays, such as those of an `.npz` file.

        Args:
            arrays: One array for each input, by its name; or `x`, for a model of one.
            source: Where they come from, for the message.

        Returns:
            An array for one input, a dict by name for several.

        Raises:
            ValueError: If an input has no array.
        """
        given = {**({self.names[0]: arrays["x"]} if len(self.names) == 1 and "x" in arrays else {}), **arrays}
        found = {one.name: given[name] for one in self.each or () for name in _names(one) if name in given}
        if len(found) < len(self.names):
            wanted = " and ".join(repr(name) for name in self.names)
            raise ValueError(
                f"{source!r} has the arrays {list(arrays)}; the model takes {wanted}. Save one array for each input "
                f"by its name{', or one called x' if len(self.names) == 1 else ''}: np.savez('data.npz', ...)."
            )
        return found if len(found) > 1 else found[self.names[0]]

    def _leaves(self, x: Any, argument: str) -> list[Any]:
        assert self.each is not None
        if isinstance(x, Mapping):
            found = [next((x[name] for name in _names(one) if name in x), None) for one in self.each]
            if all(leaf is not None for leaf in found):
                return found
        leaves = [x] if is_array(x) else keras.tree.flatten(x)
        if len(leaves) != len(self.each) or (isinstance(x, Mapping) and not self._is_nested_alike(x)):
            received = list(x) if isinstance(x, Mapping) else f"{type(x).__name__} of {len(leaves)}"
            advice = "a dict by name, or a list in this order" if len(self.each) > 1 else "one array, or a dict by name"
            raise ValueError(
                f"{self.owner!r} has the inputs {self.names}: give x in {argument} as {advice}. "
                f"Received: {type(x).__name__ if is_array(x) else received}."
            )
        return leaves

    def _is_nested_alike(self, x: Any) -> bool:
        try:
            keras.tree.assert_same_structure(x, self.structure)
        except (TypeError, ValueError):
            return False
        return True


def inputs_of(model: keras.Model) -> Inputs:
    """Return the inputs of a built model.

    Args:
        model: Any built Keras model. One with a `call` of its own tells the shapes that it was built with at most.

    Returns:
        The inputs.

    Example:

    >>> model = keras.Sequential([keras.Input((3,), name="my-input"), keras.layers.Dense(2)])
    >>> inputs_of(model).each
    (Input(name='my_input', shape=(3,), dtype=dtype('float32'), aliases=('my-input',)),)
    """
    if getattr(model, "inputs", None):
        structure = input_structure(model)
        keys = sorted(structure) if isinstance(structure, Mapping) else []
        keys = keys if len(keys) == len(model.inputs) else [tensor.name for tensor in model.inputs]
        return Inputs(
            model.name,
            tuple(
                Input(
                    name_in_file(tensor.name),
                    tuple(tensor.shape[1:]),
                    np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype),
                    tuple(dict.fromkeys((tensor.name, key))),
                )
                for tensor, key in zip(model.inputs, keys, strict=True)
            ),
            keras.tree.map_structure(lambda tensor: tensor.name, structure),
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None or not _is_shape(shape):
        return Inputs(model.name, None, None)
    return Inputs(model.name, (Input("inputs", tuple(shape[1:]), None),), "inputs")


def input_structure(model: keras.Model) -> Any:
    """Return the symbolic inputs of a model in the structure that it is called with.

    Args:
        model: A Sequential or functional model.

    Returns:
        A tensor, or a list or dict of tensors; a Sequential model takes its tensor alone.
    """
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def file_inputs(owner: str, tensors: Sequence[Any]) -> Inputs:
    """Return the inputs of a `.tflite` file.

    Args:
        owner: What the file is called.
        tensors: `TFLiteModel.inputs`. Data are real numbers, also where their dtype happens to be that of a quantized
            input.

    Returns:
        The inputs.
    """
    each = tuple(
        Input(tensor.name, tuple(tensor.shape[1:]), np.dtype(np.float32) if tensor.scale else tensor.dtype)
        for tensor in tensors
    )
    names = [one.name for one in each]
    return Inputs(owner, each, names if len(names) > 1 else names[0])


def name_in_file(name: str) -> str:
    """Return what an input is called in a `.tflite` file, whose signature holds names that Python could have.

    Example:

    >>> name_in_file("my-input:0"), name_in_file("2nd"), name_in_file("in")
    ('my_input_0', 'input_2nd', 'input_in')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return name if name[:1].isalpha() and not keyword.iskeyword(name) else f"input_{name}"


def check_finite(array: np.ndarray, argument: str, part: str) -> None:
    """Raise if an array of floats has NaN or infinite values; `part` says which of the arguments' arrays it is."""
    floats = array.astype(np.float32) if array.dtype.kind == "V" else array
    if floats.dtype.kind in "fc" and not np.isfinite(floats).all():
        raise ValueError(f"{argument} holds NaN or infinite values: {part}. Remove them.")


def _names(one: Input) -> tuple[str, ...]:
    return (one.name, *one.aliases)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list | tuple) and all(size is None or isinstance(size, int) for size in shape)


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join(['samples', *('any' if size is None else str(size) for size in shape)])})"
