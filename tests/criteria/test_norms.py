import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.criteria import ChannelView, MemberView, Norm, l1_norm, l2_norm
from tfprune.criteria.norms import channels_as_rows

KERNELS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(-100, 100, width=32)
)


def test_by_hand():
    kernel = np.array([[3.0, -1.0, 0.0], [-4.0, 1.0, 0.0]])
    assert l1_norm(kernel).tolist() == [7.0, 2.0, 0.0]
    assert l2_norm(kernel).tolist() == [5.0, 2.0**0.5, 0.0]
    assert l1_norm(kernel, axis=0).tolist() == [4.0, 5.0]
    assert l2_norm(kernel, axis=0).tolist() == [10.0**0.5, 17.0**0.5]


@given(KERNELS, st.data())
def test_equal_to_numpy_over_the_other_axes(kernel, data):
    axis = data.draw(st.integers(-kernel.ndim, kernel.ndim - 1))
    others = tuple(a for a in range(kernel.ndim) if a != axis % kernel.ndim)
    wide = kernel.astype("float64")
    np.testing.assert_allclose(l1_norm(kernel, axis), np.abs(wide).sum(axis=others), rtol=1e-12)
    np.testing.assert_allclose(l2_norm(kernel, axis), np.sqrt((wide**2).sum(axis=others)), rtol=1e-12)


def test_any_order():
    kernel = np.array([[3.0, -1.0, 0.0], [-4.0, 1.0, 0.0]])
    view = ChannelView("hidden", 3, (MemberView("kernel", lambda: kernel, "producer", None, 1, np.arange(3)),))
    expected = {0.5: [(3**0.5 + 2) ** 2, 4.0, 0.0], 1: [7.0, 2.0, 0.0], 3: [91 ** (1 / 3), 2 ** (1 / 3), 0.0]}
    for p, norms in expected.items():
        ((_, scores),) = Norm(p).score(view)
        np.testing.assert_allclose(scores, norms)
    with pytest.raises(ValueError, match="p must be above 0"):
        Norm(0)


@pytest.mark.parametrize("criterion", [l1_norm, l2_norm])
def test_float16_does_not_overflow(criterion):
    scores = criterion(np.full((100, 2), 60000.0, "float16"))
    assert scores.dtype == np.float64
    assert scores.tolist() == pytest.approx([{l1_norm: 6e6, l2_norm: 6e5}[criterion]] * 2)


def test_rows_are_a_copy():
    kernel = np.arange(6.0).reshape(3, 2)
    rows = channels_as_rows(kernel, -1)
    rows[:] = -1.0
    assert kernel.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
