"""`cluster_aware`: a model that trains with weights that share a few values."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.clustering.codebook import Codebook
from tfprune.clustering.k_means import Init
from tfprune.clustering.shared_values import SharedKernel, Sharing, clustered_kernels
from tfprune.graph import Call, Node, is_graph, rule
from tfprune.graph.chains import chains
from tfprune.graph.exclude import Exclude
from tfprune.rewriting.computed_kernels import ComputedKernels
from tfprune.rewriting.engine import Rewriter


def cluster_aware(
    model: keras.Model,
    clusters: int,
    *,
    init: Init = "k-means++",
    per_channel: bool = False,
    keep_zeros: bool = True,
    exclude: Exclude = None,
    seed: int = 0,
) -> keras.Model:
    """Return a model to `fit` as usual, in which the weights of each kernel share a few values that train.

    It computes with the nearest centroid in place of every weight. A centroid follows the sum of the gradients of its
    weights; the weights follow their own, and so move from one centroid to another. `tfprune.strip` gives the plain
    model with the shared values. Give it to `tfprune.quantize_aware` to train with int8 rounding as well: in the int8
    file, too, a kernel then has at most `clusters` different values.

    Fine-tune a trained model, with a tenth of its learning rate or less. Prune before: zeros stay zero, and are one of
    the clusters. Depthwise kernels are left alone: they have few weights.

    Reference: Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", ICLR 2016, https://arxiv.org/abs/1510.00149

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.
        clusters: How many different values a kernel may have, 2 or more; 8 to 32 are mostly enough.
        init: Where k-means starts to find the first centroids, as in `tfprune.cluster`.
        per_channel: Whether every output channel has `clusters` values of its own.
        keep_zeros: Whether weights that are zero, as pruning leaves them, stay so. A kernel of zeros alone trains.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.
        seed: Of random choices.

    Returns:
        A model of the same class, compiled like the model, with a new optimizer; layers with kernels lie in wrappers
        of the same name.

    Raises:
        ImportError: If `init` needs a package that is not installed.
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built or cannot be read layer by layer, shares values or is quantize-aware
            already, an argument is out of range, or a kernel has fewer weights than `clusters`.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> aware = tfprune.cluster_aware(model, 4)
    >>> aware.compile("sgd", "mse")
    >>> history = aware.fit(np.ones((8, 20)), np.ones((8, 10)), verbose=0)
    >>> len(np.unique(strip_clusters(aware).layers[0].kernel))
    4
    """
    sharing = Sharing(clusters, init, per_channel, keep_zeros, seed)
    found = clustered_kernels(model, sharing, exclude)
    made_already = [layer.name for *_, layer in chains(model) if isinstance(layer, ComputedKernels)]
    if made_already:
        raise ValueError(
            f"Layers of the model {model.name!r} share values already: {made_already}. Fit it, or strip it first."
        )
    return _Clusterer(sharing, {id(kernel.variable): kernel for kernel in found}).rewrite(model)


def is_cluster_aware(model: keras.Model) -> bool:
    """Return whether a model came from `cluster_aware`, and still has its codebooks where `strip_clusters` takes them.

    Args:
        model: A Keras model.

    Example:

    >>> is_cluster_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    False
    """
    return any(_is_clustered(layer) for *_, layer in chains(model))


def strip_clusters(model: keras.Model) -> keras.Model:
    """Return the plain model of a cluster-aware one, in which weights have the values that they shared.

    Args:
        model: A model from `cluster_aware`; it is not changed.

    Returns:
        A model that loads without tfprune, compiled like the model, with a new optimizer.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not cluster-aware.

    Example:

    >>> aware = cluster_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), 2)
    >>> [type(layer).__name__ for layer in strip_clusters(aware).layers]
    ['Dense']
    """
    if not is_cluster_aware(model):
        raise ValueError(f"The model {model.name!r} is not cluster-aware. Give what tfprune.cluster_aware returned.")
    return _Stripper().rewrite(model)


def _is_clustered(layer: Any) -> bool:
    return isinstance(layer, ComputedKernels) and any(isinstance(maker, Codebook) for maker in layer.makers)


class _WithModels(Rewriter):
    """Makes the models inside the model anew as well."""

    def opened(self, node: Node) -> keras.Model | None:
        return node.operation if is_graph(node.operation) else None


class _Clusterer(_WithModels):
    """Puts each layer with kernels that share values into a wrapper."""

    def __init__(self, sharing: Sharing, kernels: Mapping[int, SharedKernel]) -> None:
        super().__init__()
        self._sharing, self._kernels = sharing, kernels

    def copy(self, layer: Any) -> Any:
        variables = layer.variables if isinstance(layer, keras.layers.Layer) else []
        positions = [place for place, variable in enumerate(variables) if id(variable) in self._kernels]
        if not positions:
            return self.copies.of(layer)
        return self.copies.once(("clustered", id(layer)), lambda: self._wrapped(layer, positions))

    def _wrapped(self, layer: Any, positions: list[int]) -> keras.layers.Layer:
        codebooks = [self._codebook(self._kernels[id(layer.variables[place])], layer.trainable) for place in positions]
        return ComputedKernels(self.copies.of(layer), positions, codebooks, name=layer.name, dtype=layer.dtype_policy)

    def _codebook(self, kernel: SharedKernel, trainable: bool) -> Codebook:
        weights, axes = kernel.weights, self._sharing.axes(kernel)
        # Nothing would be left to train of a kernel of zeros alone.
        keeps = self._sharing.keep_zeros and 0 < np.mean(weights == 0) < 1
        centroids = self._sharing.centroids(weights, axes)
        codebook = Codebook(centroids.shape[1], len(centroids), axes, bool(keeps), trainable=trainable)
        codebook.centroids.assign(centroids)
        return codebook


class _Stripper(_WithModels):
    """Takes layers out of their wrappers, with the kernels that these made."""

    def copy(self, layer: Any) -> Any:
        return self.copies.of(layer.layer if _is_clustered(layer) else layer)

    def rewrite(self, model: keras.Model, trains: bool = True) -> keras.Model:
        copy = super().rewrite(model, trains)
        twins = {
            id(variable): twin
            for layer, made in self.copies.pairs
            for variable, twin in zip(layer.variables, made.variables, strict=True)
        }
        for *_, layer in chains(model):
            if _is_clustered(layer):
                for position in layer.positions:
                    twins[id(layer.layer.variables[position])].assign(layer.kernel(position))
        return copy


@rule(ComputedKernels)
def _stays(call: Call) -> list[np.ndarray]:
    return call.give_up("its weights share values: prune before tfprune.cluster_aware")
