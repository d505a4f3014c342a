"""Steps that pull values towards zero and leave them there: the proximal operators of sparsity penalties."""

from typing import Any

from keras import ops


def soft_threshold(values: Any, step: Any) -> Any:
    """Move values towards zero by `step`, and stop there: the proximal operator of `step * |x|`.

    Reference: Daubechies et al., An Iterative Thresholding Algorithm for Linear Inverse Problems with a Sparsity
    Constraint, 2004, https://arxiv.org/abs/math/0307152

    Args:
        values: A float tensor.
        step: How far; a scalar, or a tensor that broadcasts. At least 0.

    Returns:
        sign(x) * max(|x| - step, 0), of the shape of `values`. Zeros are +0.0: a -0.0 would say that `HeldMasks`
        has pruned the weight.

    Example:

    >>> soft_threshold(ops.array([-2.0, 0.5, 3.0]), 1.0).numpy().tolist()
    [-1.0, 0.0, 2.0]
    """
    return values - ops.clip(values, -step, step)


def group_factors(squared_norms: Any, step: Any) -> Any:
    """Return by which factor groups of values shrink: the proximal operator of `step * ||x||` for each of them.

    A group whose norm is at most `step` becomes exactly zero, all others lose `step` of their norm.

    Reference: Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables, 2006; Wen et al.,
    Learning Structured Sparsity in Deep Neural Networks, 2016, https://arxiv.org/abs/1608.03665

    Args:
        squared_norms: For each group the sum of its squared values; a float tensor.
        step: How far the norm goes down; a scalar, or a tensor that broadcasts. At least 0.

    Returns:
        max(0, 1 - step / norm) for each group; 0 where the norm is 0.

    Example:

    >>> group_factors(ops.array([25.0, 1.0, 0.0]), 2.5).numpy().tolist()
    [0.5, 0.0, 0.0]
    """
    norms = ops.sqrt(squared_norms)
    # The denominator cannot be zero where the result is not.
    return ops.relu(norms - step) / ops.maximum(norms, 1e-30)
