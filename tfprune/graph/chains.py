"""Where the layers of a model lie: inside which wrappers, models and other layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import keras

Chain = tuple[keras.layers.Layer, ...]
"""A layer at the end, behind the layers that it lies in, from the outside in; without the model itself."""


def chains(layer: keras.layers.Layer, outer: Chain = ()) -> Iterator[Chain]:
    """Find every layer inside a layer or model; the calls need not be readable.

    Args:
        layer: A layer or model, built or not.
        outer: What to put before each chain.

    Yields:
        One chain for each way to a layer, so that a shared layer comes several times. Chains to what lies inside a
        layer follow that of the layer.

    Example:

    >>> wrapper = keras.layers.TimeDistributed(keras.layers.Dense(2, name="inner"), name="outer")
    >>> [[layer.name for layer in chain] for chain in chains(keras.Sequential([wrapper]))]
    [['outer'], ['outer', 'inner']]
    """
    for inner in children(layer):
        yield (*outer, inner)
        yield from chains(inner, (*outer, inner))


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers that a layer or model holds itself, without what lies inside them.

    Example:

    >>> [layer.name for layer in children(keras.layers.TimeDistributed(keras.layers.Dense(2, name="inner")))]
    ['inner']
    """
    # Private: the public `layers` of a model leaves out those inside other layers. tests/parts/test_kernels.py fails
    # when it moves.
    return list(layer._flatten_layers(include_self=False, recursive=False))


def teacher_of(model: keras.Model) -> keras.layers.Layer | None:
    """Return the teacher of a model that holds a `student` and a `teacher`, as those of keras.io do; else `None`.

    Args:
        model: Any Keras model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.student, model.teacher = keras.layers.Dense(2), keras.layers.Dense(4, name="large")
    >>> teacher_of(model).name
    'large'
    """
    student, teacher = (getattr(model, role, None) for role in ("student", "teacher"))
    held = isinstance(student, keras.layers.Layer) and isinstance(teacher, keras.layers.Layer)
    return teacher if held and teacher is not student else None


@dataclass(frozen=True)
class Places:
    """The chains of a model.

    Attributes:
        of_layer: For each layer (by id), the chains that end with it.
        of_variable: For each variable (by id), the chains that end with a layer that holds it itself.
    """

    of_layer: dict[int, list[Chain]] = field(default_factory=dict)
    of_variable: dict[int, list[Chain]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model) -> "Places":
        """Return the chains of a model.

        Args:
            model: A Keras model.
        """
        places = cls()
        for chain in chains(model):
            places.of_layer.setdefault(id(chain[-1]), []).append(chain)
        for each in places.of_layer.values():
            for variable in _own_variables(each[0][-1]):
                places.of_variable.setdefault(id(variable), []).extend(each)
        return places


def _own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    inside = {id(variable) for inner in children(layer) for variable in inner.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]
