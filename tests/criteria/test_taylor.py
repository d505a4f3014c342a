"""Taylor's three forms, by hand."""

import numpy as np
import pytest
from criterion_views import member

from tfprune.criteria import ChannelView, GroupFisher, Taylor, as_channel_criterion

GRADIENTS = [
    {"gradient": np.array([[1.0, 2.0], [-1.0, 0.5]])},
    {"gradient": np.array([2.0, -1.0])},
    {"gradient": np.array([[1.0], [3.0]])},
]
VIEW = ChannelView(
    "hidden",
    2,
    (
        member([[3.0, 0.0], [4.0, 1.0]], "producer", axis=1, statistics=GRADIENTS[0]),
        member([0.5, 2.0], "affine", name="bias", effect="shift", statistics=GRADIENTS[1]),
        member([[2.0], [-1.0]], "consumer", statistics=GRADIENTS[2]),
        member([9.0, 9.0], "statistics", name="moving_mean"),
    ),
    statistics={"gate_gradient": np.array([-0.5, 2.0]), "gate_gradient_squared": np.array([4.0, 5.0])},
)


def test_gates():
    assert Taylor().score(VIEW).tolist() == [0.5, 2.0]
    assert GroupFisher().score(VIEW).tolist() == [4.0, 5.0]


def test_weights_by_hand():
    # products by channel: kernel 3, -4 and 0, 0.5; bias 1 and -2; reader 2 and -3
    assert Taylor("sum").score(VIEW).tolist() == [2.0, 4.5]
    assert Taylor("squares").score(VIEW).tolist() == [9 + 16 + 1 + 4, 0.25 + 4 + 9]


@pytest.mark.parametrize(("form", "needed"), [("gate", "gate_gradient"), ("sum", "gradient"), ("squares", "gradient")])
def test_says_what_it_needs(form, needed):
    with pytest.raises(ValueError, match=rf"Taylor needs the statistics \['{needed}'\].*data="):
        as_channel_criterion(Taylor(form))
    assert as_channel_criterion(Taylor(form), provided=[needed]).loss == "compiled"


def test_forms_are_known():
    with pytest.raises(ValueError, match=r"form must be one of \('gate', 'sum', 'squares'\)"):
        Taylor("gates")
