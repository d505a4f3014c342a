"""Factors of kernels: exact at full rank, and what is lost below it, against independent decompositions."""

import itertools

import keras
import numpy as np
import pytest
from tensorly.decomposition import parafac, partial_tucker

from tfprune.decomposition import CP, SVD, SpatialSVD, Tucker
from tfprune.decomposition.base import Piece, product, relative_loss, tails
from tfprune.decomposition.cp import balanced_cp
from tfprune.decomposition.fitting import refitted

SHAPES = [
    pytest.param(SVD(), (5, 7), id="dense"),
    pytest.param(SVD(), (3, 2, 4, 6), id="channels"),
    pytest.param(SVD(), (2, 2, 2, 3, 4), id="volume"),
    pytest.param(SpatialSVD(), (3, 2, 4, 6), id="spatial"),
    pytest.param(Tucker(), (3, 2, 4, 6), id="tucker"),
    pytest.param(Tucker(), (3, 9, 4), id="tucker-sequence"),
    pytest.param(CP(), (3, 3, 4, 5), id="cp"),
    pytest.param(CP(), (4, 3, 5), id="cp-sequence"),
]


def kernel_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(method, kernel, ranks, covariance=None):
    return product(method.pieces(kernel.shape, ranks), method.factors(kernel, ranks, covariance))


@pytest.mark.parametrize(("method", "shape"), SHAPES)
def test_nothing_is_lost_at_full_rank(method, shape):
    kernel = kernel_of(shape)
    np.testing.assert_allclose(close(method, kernel, method.full(shape)), kernel, atol=1e-5)


@pytest.mark.parametrize(("method", "shape"), SHAPES)
def test_factors_have_the_shapes_of_the_pieces(method, shape):
    ranks = (2,) * method.num_ranks
    factors = method.factors(kernel_of(shape), ranks)
    assert [factor.shape for factor in factors] == [piece.shape for piece in method.pieces(shape, ranks)]


@pytest.mark.parametrize("method", [SVD(), SpatialSVD()], ids=str)
def test_losses_are_those_of_the_factors(method):
    kernel = kernel_of((3, 2, 4, 6))
    ranks, losses = method.losses(kernel, method.full(kernel.shape))
    real = [relative_loss(kernel, close(method, kernel, tuple(each))) for each in ranks.tolist()]
    np.testing.assert_allclose(losses, real, atol=1e-12)


def test_tucker_never_loses_more_than_it_says():
    kernel = kernel_of((3, 3, 6, 5))
    ranks, losses = Tucker().losses(kernel, (6, 5))
    assert ranks.tolist() == [list(pair) for pair in itertools.product(range(1, 7), range(1, 6))]
    real = [relative_loss(kernel, close(Tucker(), kernel, tuple(each))) for each in ranks.tolist()]
    assert np.all(np.array(real) <= losses + 1e-12)
    assert np.count_nonzero(np.array(real) < losses - 1e-6) > 5  # the iteration is worth something


def test_svd_is_the_best_matrix_of_its_rank():
    kernel = kernel_of((6, 9))
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    np.testing.assert_allclose(close(SVD(), kernel, (2,)), (left[:, :2] * values[:2]) @ right[:2], atol=1e-12)
    first, second = SVD().factors(kernel, (2,))
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1))


def test_spatial_factors_of_a_window_that_is_a_column_times_a_row():
    kernel = np.einsum("h,w,nm->hwnm", [1.0, 2.0, 1.0], [-1.0, 0.0, 1.0], np.eye(2))  # Sobel, two channels
    np.testing.assert_allclose(close(SpatialSVD(), kernel, (2,)), kernel, atol=1e-12)


@pytest.mark.parametrize("ranks", [(2, 3), (4, 2), (5, 6)])
def test_tucker_is_that_of_tensorly(ranks):
    kernel = kernel_of((3, 3, 6, 7))
    (core, (inputs, outputs)), _ = partial_tucker(kernel, ranks, modes=[2, 3], n_iter_max=200, tol=1e-10)
    theirs = relative_loss(kernel, np.einsum("hwrs,nr,ms->hwnm", core, inputs, outputs))
    mine = close(Tucker(iterations=200), kernel, ranks)
    assert relative_loss(kernel, mine) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("ranks", [(6, 3), (2, 7)])
def test_tucker_leaves_out_a_layer_that_would_keep_all_channels(ranks):
    kernel = kernel_of((3, 3, 6, 7))
    assert len(Tucker().pieces(kernel.shape, ranks)) == 2
    axis, rank = (-1, 3) if ranks[0] == 6 else (-2, 2)
    values = np.linalg.svd(np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1), compute_uv=False)
    lost = np.square(values[rank:]).sum() / np.square(values).sum()
    assert relative_loss(kernel, close(Tucker(), kernel, ranks)) == pytest.approx(lost)


def test_cp_finds_a_sum_of_products():
    random = np.random.default_rng(0)
    kernel = np.einsum("sr,nr,mr->snm", *(random.normal(size=(size, 4)) for size in (9, 8, 10))).reshape(3, 3, 8, 10)
    assert relative_loss(kernel, close(CP(), kernel, (4,))) < 1e-8


@pytest.mark.parametrize("rank", [2, 5])
def test_cp_is_as_close_as_that_of_tensorly(rank):
    kernel = kernel_of((3, 3, 6, 7))
    weights, modes = parafac(kernel.reshape(9, 6, 7), rank, n_iter_max=200)
    theirs = relative_loss(kernel, np.einsum("r,sr,nr,mr->snm", weights, *modes).reshape(kernel.shape))
    assert relative_loss(kernel, close(CP(iterations=200), kernel, (rank,))) < 1.02 * theirs


def test_products_that_are_alike_are_no_trouble():
    tensor = np.einsum("i,j,k", [1.0, 2.0], [1.0, -1.0, 3.0], [2.0, 0.5, 1.0])
    modes = balanced_cp(tensor, 3, 50)  # of which one is enough
    np.testing.assert_allclose(np.einsum("ir,jr,kr->ijk", *modes), tensor, atol=1e-5)
    assert all(np.isfinite(mode).all() for mode in balanced_cp(np.zeros((2, 3, 3)), 2, 5))


@pytest.mark.parametrize("shape", [(5, 7), (3, 3, 2, 6)], ids=["dense", "window"])
def test_svd_with_a_covariance_loses_the_least_of_the_outputs(shape):
    kernel, random = kernel_of(shape), np.random.default_rng(1)
    size = int(np.prod(shape[:-1]))
    root = random.normal(size=(size, size)) * np.arange(1, size + 1)
    covariance = root.T @ root
    # By definition: the best matrix of rank 2 in this norm, through a square root of the covariance.
    values, vectors = np.linalg.eigh(covariance)
    whitening = np.sqrt(values)[:, None] * vectors.T
    left, singular, right = np.linalg.svd(whitening @ kernel.reshape(size, -1), full_matrices=False)
    best = np.linalg.solve(whitening, (left[:, :2] * singular[:2]) @ right[:2])
    found = close(SVD(), kernel, (2,), covariance)
    np.testing.assert_allclose(found.reshape(size, -1), best, atol=1e-8)
    ranks, losses = SVD().losses(kernel, SVD().full(shape), covariance)
    assert losses[1] == pytest.approx(relative_loss(kernel, found, covariance))
    assert losses[-1] < 1e-12
    assert len(ranks) == min(size, shape[-1])


@pytest.mark.parametrize(
    ("method", "ranks"), [(SpatialSVD(), (3,)), (Tucker(), (2, 3)), (Tucker(), (2, 6)), (CP(), (3,))], ids=str
)
def test_last_factor_is_the_least_squares_solution(method, ranks):
    kernel, random = kernel_of((3, 2, 4, 6)), np.random.default_rng(1)
    rows = random.normal(size=(200, 24)) * np.arange(1, 25)
    pieces, factors = method.pieces(kernel.shape, ranks), method.factors(kernel, ranks)
    last = refitted(kernel, pieces, factors, rows.T @ rows)
    # By definition: what each single weight of the last factor adds to the outputs, as the columns of a least squares.
    columns = []
    for index in np.ndindex(last.shape[:-1]):
        single = np.zeros(last.shape)
        single[index] = 1
        columns.append(rows @ product(pieces, [*factors[:-1], single]).reshape(24, -1)[:, 0])
    wanted = rows @ kernel.reshape(24, -1)
    solution = np.linalg.lstsq(np.stack(columns, axis=1), wanted, rcond=None)[0]
    np.testing.assert_allclose(last.reshape(-1, 6), solution, atol=1e-5)


def test_tails_of_nothing_are_nothing():
    assert tails(np.array([4.0, 3.0, 2.0, 1.0])).tolist() == [0.6, 0.3, 0.1, 0.0]
    assert tails(np.zeros(3)).tolist() == [0, 0, 0]
    assert relative_loss(np.zeros((2, 2)), np.zeros((2, 2))) == 0


def test_product_of_a_depthwise_piece():
    pieces = Piece((1, 2, 3)), Piece((5, 3, 1), (0,), depthwise=True), Piece((1, 3, 4))
    first, middle, last = (kernel_of(piece.shape, seed) for seed, piece in enumerate(pieces))
    expected = np.einsum("nr,sr,rm->snm", first[0], middle[..., 0], last[0])
    np.testing.assert_allclose(product(pieces, [first, middle, last]), expected)


@pytest.mark.parametrize(
    ("method", "layer", "reason"),
    [
        (SpatialSVD(), keras.layers.Dense(3), "row and column"),
        (SpatialSVD(), keras.layers.Conv2D(3, (1, 3)), "row and column"),
        (Tucker(), keras.layers.Conv2D(3, 1), "more than one place"),
        (Tucker(), keras.layers.Dense(3), "a convolution"),
        (CP(), keras.layers.Conv3D(3, 3), "Conv1D or Conv2D"),
        (CP(), keras.layers.Conv2D(3, 3, strides=(1, 2)), "strides that differ"),
        (CP(), keras.layers.Conv1D(3, 3, padding="causal"), "causal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_methods_say_what_they_cannot_do(method, layer, reason):
    layer.build((None, *(6,) * (getattr(layer, "rank", 0)), 4))
    assert reason in method.refusal(layer)
