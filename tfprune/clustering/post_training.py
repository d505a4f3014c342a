"""`cluster`: weights that share a few values, without training."""

from collections.abc import Callable

import keras

from tfprune.clustering.k_means import Init
from tfprune.clustering.shared_values import Sharing, clustered_kernels, shared
from tfprune.graph.exclude import Exclude
from tfprune.rewriting.engine import Rewriter


def cluster(
    model: keras.Model,
    clusters: int,
    *,
    init: Init = "k-means++",
    per_channel: bool = False,
    keep_zeros: bool = True,
    exclude: Exclude = None,
    seed: int = 0,
) -> keras.Model:
    """Return a copy of a model in which the weights of each kernel have a few different values only.

    The values are the centroids that k-means finds. The model computes and costs what it did before; its files become
    smaller when they are compressed, by gzip or by `tfprune.pack`. It needs no data. Where it costs accuracy, train
    with the shared values: `tfprune.cluster_aware`.

    Depthwise kernels are left alone: they have few weights.

    Reference: Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", ICLR 2016, https://arxiv.org/abs/1510.00149

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.
        clusters: How many different values a kernel may have, 2 or more; 16 or 32 are mostly enough.
        init: Where k-means starts: `"k-means++"`, `"linear"` (evenly between the smallest and the largest weight, which
            keeps large weights), `"density"` (as many weights between any two values) or `"gaussian mixture"` (at the
            means of one; needs `pip install "tfprune[clustering]"`).
        per_channel: Whether every output channel has `clusters` values of its own.
        keep_zeros: Whether zeros, as pruning leaves them, stay zero: they are one of the clusters.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.
        seed: Of random choices.

    Returns:
        A model of the same class, compiled like the model, with a new optimizer.

    Raises:
        ImportError: If `init` needs a package that is not installed.
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built or cannot be read layer by layer, an argument is out of range, or a kernel
            has fewer weights than `clusters`.

    Example:

    >>> import numpy as np, tfprune
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> len(np.unique(tfprune.cluster(model, 4).layers[0].kernel))
    4
    """
    sharing = Sharing(clusters, init, per_channel, keep_zeros, seed)
    found = clustered_kernels(model, sharing, exclude)
    copy, twin_of = copied(model)
    for kernel in found:
        axes = sharing.axes(kernel)
        values = sharing.centroids(kernel.weights, axes)
        twin_of(kernel.variable).assign(shared(kernel.weights, values, axes, keep_zeros))
    return copy


def copied(model: keras.Model) -> tuple[keras.Model, Callable[[keras.Variable], keras.Variable]]:
    """Return a copy of a model, and what finds the copy of a variable."""
    rewriter = Rewriter()
    copy = rewriter.rewrite(model)
    twins = {
        id(variable): twin
        for layer, made in rewriter.copies.pairs
        for variable, twin in zip(layer.variables, made.variables, strict=True)
    }
    return copy, lambda variable: twins[id(variable)]
