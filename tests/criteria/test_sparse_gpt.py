"""SparseGPT against Optimal Brain Surgeon and least squares."""

import numpy as np
import pytest

from tfprune.criteria import SparseGPT, WeightView

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 6)) @ RANDOM.normal(size=(6, 6))
WEIGHTS = RANDOM.normal(size=(6, 3))
VIEW = WeightView("kernel", lambda: WEIGHTS, statistics={"input_gram": X.T @ X / 50})


def pruned(mask, view=VIEW, **options):
    """What SparseGPT makes of the others where a mask says what goes."""
    whole = [(slice(0, len(mask)), lambda scores: mask)]
    return SparseGPT(damping=0, **options).prune(view, np.ones(mask.shape, bool), whole)[1]


def brain_surgeon(weights, gram, place):
    """The change of a vector of weights by one of which is zero afterwards, in closed form."""
    inverse = np.linalg.inv(2 * gram)
    return weights - weights[place] / inverse[place, place] * inverse[:, place]


def test_score_is_the_error_that_is_left_by_optimal_brain_surgeon():
    scores = SparseGPT(damping=0).score(VIEW)
    for place in np.ndindex(scores.shape):
        changed = brain_surgeon(WEIGHTS[:, place[1]], X.T @ X / 50, place[0])
        error = ((X @ (WEIGHTS[:, place[1]] - changed)) ** 2).sum() / 50
        assert scores[place] == pytest.approx(error, rel=1e-8)


@pytest.mark.parametrize("place", range(6))
def test_one_weight_gone_is_optimal_brain_surgeon_on_the_inputs_from_there_on(place):
    mask = np.ones(WEIGHTS.shape, bool)
    mask[place, 1] = False
    found, expected = pruned(mask), WEIGHTS.copy()
    later = X[:, place:]
    expected[place:, 1] = brain_surgeon(WEIGHTS[place:, 1], later.T @ later / 50, 0)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found[place, 1] == 0


def test_first_inputs_gone_is_least_squares_on_the_others():
    mask = np.ones(WEIGHTS.shape, bool)
    mask[:3] = False
    expected = np.linalg.lstsq(X[:, 3:], X @ WEIGHTS, rcond=None)[0]
    np.testing.assert_allclose(pruned(mask)[3:], expected, rtol=1e-7)


def test_chooses_the_least_harmful_of_each_part():
    seen = []

    def half(scores):
        seen.append(scores)
        return scores > np.median(scores)

    parts = [(slice(0, 2), half), (slice(2, 6), half)]
    mask, weights = SparseGPT(damping=0).prune(VIEW, np.ones(WEIGHTS.shape, bool), parts)
    gram = X.T @ X / 50
    for row in (0, 1):  # what is left where only later inputs make up
        inverse = np.linalg.inv(2 * gram[row:, row:])
        np.testing.assert_allclose(seen[0][row], WEIGHTS[row] ** 2 / inverse[0, 0], rtol=1e-8)
    assert mask[:2].tolist() == (seen[0] > np.median(seen[0])).tolist()
    assert seen[1].shape == (4, 3)
    assert mask.sum() == 9
    assert (weights == 0).tolist() == (~mask).tolist()


def test_inputs_that_are_always_zero_lose_their_weights():
    gram = np.diag([0.0, 1.0, 2.0])
    view = WeightView("kernel", lambda: np.ones((3, 1)), statistics={"input_gram": gram})
    assert pruned(np.ones((3, 1), bool), view).tolist() == [[0.0], [1.0], [1.0]]


def test_inputs_that_depend_on_each_other_need_damping():
    view = WeightView("conv", lambda: np.ones((2, 1)), statistics={"input_gram": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"Gram matrix of the 2 inputs of 'conv' has no inverse.*damping above 0"):
        SparseGPT(damping=0).score(view)
    assert np.isfinite(SparseGPT().score(view)).all()
    for bad in ({"damping": -1}, {"block_size": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            SparseGPT(**bad)
