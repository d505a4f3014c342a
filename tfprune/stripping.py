"""The plain model inside one that a technique has made for training."""

import keras

from tfprune.clustering import is_cluster_aware, strip_clusters
from tfprune.distillation import Distilled
from tfprune.graph import check_built
from tfprune.quantization import is_quantize_aware
from tfprune.quantization import strip as strip_quantization


def strip(model: keras.Model) -> keras.Model:
    """Return the plain model of one that was made for training: quantize-aware, cluster-aware or distilled.

    Args:
        model: A model from `quantize_aware`, `cluster_aware` or `distill`; it is not changed. One technique is taken
            off, the outermost: of a distilled quantize-aware student the result is still quantize-aware.

    Returns:
        Of a quantize-aware model, a functional model in float, with what it learned, that loads without tfprune;
        compiled like the model, with a new optimizer. Of a cluster-aware one, a plain model in which weights have
        the values that they shared. Of a distilled one, the student itself, compiled as it was.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is plain already.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in strip(tfprune.quantize_aware(model)).layers]
    ['InputLayer', 'Dense', 'ReLU']
    """
    check_built(model)
    if isinstance(model, Distilled):
        return model.student
    if is_quantize_aware(model):
        return strip_quantization(model)
    if is_cluster_aware(model):
        return strip_clusters(model)
    raise ValueError(
        f"The model {model.name!r} is not quantize-aware, cluster-aware or distilled, so there is nothing "
        "to take off. Give what tfprune.quantize_aware, tfprune.cluster_aware or tfprune.distill returned."
    )


def plain(model: keras.Model) -> keras.Model:
    """Return a model without any technique of training: itself if it has none.

    Args:
        model: A built Keras model; it is not changed.

    Returns:
        What `strip` gives until nothing is left to take off.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> plain(model) is model, type(plain(tfprune.quantize_aware(tfprune.cluster_aware(model, 2))).layers[-1]).__name__
    (True, 'Dense')
    """
    while isinstance(model, Distilled) or is_quantize_aware(model) or is_cluster_aware(model):
        model = strip(model)
    return model
