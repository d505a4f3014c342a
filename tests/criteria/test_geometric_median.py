import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from tfprune.criteria import geometric_median_distance

KERNELS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-10, 10, width=32)
)


def test_a_triangle_by_hand():
    # The points (0, 0), (3, 4) and (0, 1): distances 5, 1 and sqrt(9 + 9).
    kernel = np.array([[0.0, 3.0, 0.0], [0.0, 4.0, 1.0]])
    expected = [5 + 1, 5 + 18**0.5, 1 + 18**0.5]
    np.testing.assert_allclose(geometric_median_distance(kernel), expected, rtol=1e-14)
    np.testing.assert_allclose(geometric_median_distance(kernel.T, axis=0), expected, rtol=1e-14)


def test_the_middle_of_a_line_scores_lowest():
    scores = geometric_median_distance(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]))
    assert scores.tolist() == pytest.approx([10.0, 7.0, 6.0, 7.0, 10.0])


@given(KERNELS)
def test_equal_to_scipy(kernel):
    rows = kernel.reshape(-1, kernel.shape[-1]).T.astype("float64")
    expected = cdist(rows, rows).sum(axis=1)
    # |a|^2 + |b|^2 - 2ab loses half of float64's digits where points coincide.
    np.testing.assert_allclose(geometric_median_distance(kernel), expected, rtol=1e-7, atol=1e-5)


def test_near_duplicates_far_from_zero_keep_their_order():
    kernel = 1000.0 + np.array([[0.0, 1e-3, 3e-3, 7e-3]])
    expected = cdist(kernel.T, kernel.T).sum(axis=1)
    np.testing.assert_allclose(geometric_median_distance(kernel), expected, rtol=1e-6)


def test_moving_all_filters_changes_nothing():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 6))
    moved = geometric_median_distance(kernel + np.random.default_rng(1).normal(size=(3, 3, 2, 1)))
    np.testing.assert_allclose(moved, geometric_median_distance(kernel), rtol=1e-10)


def test_a_single_filter_and_equal_filters():
    assert geometric_median_distance(np.ones((2, 2, 3, 1))).tolist() == [0.0]
    assert geometric_median_distance(np.ones((2, 4))).tolist() == [0.0] * 4


def test_the_kernel_is_not_changed():
    kernel = np.arange(12.0).reshape(3, 4)
    before = kernel.copy()
    geometric_median_distance(kernel)
    assert np.array_equal(kernel, before)


def test_nan_stays_visible():
    assert np.isnan(geometric_median_distance(np.array([[np.nan, 1.0, 2.0]]))).all()
