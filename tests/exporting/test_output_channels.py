import numpy as np
import pytest

from tfprune.exporting.channels import far_apart, far_channel, lost_channels, mostly_equal


def numbers(count, channels, far):
    """Zeros, of which some in channel 0 are three steps of 0.5 off."""
    actual = np.zeros((count, channels))
    actual[:far, 0] = 1.5
    return far_apart(np.zeros((count, channels)), actual, step=0.5)


@pytest.mark.parametrize(
    ("count", "channels", "far", "wrong"),
    [
        (1000, 1, 1, ""),
        (1000, 1, 2, "0.2% of channel 0 are more than two steps apart, and 0.1% may be"),
        (100, 10, 1, ""),
        (100, 10, 2, "2% of channel 0 are more than two steps apart, and 1% may be"),
        (10, 100, 10, "100% of channel 0 are more than two steps apart, and 10% may be"),
    ],
)
def test_one_in_a_thousand_may_be_far_apart_in_every_channel(count, channels, far, wrong):
    assert mostly_equal(numbers(count, channels, far), 1e-3) == wrong


def test_all_channels_together_may_have_one_in_a_thousand():
    far = np.zeros((100, 1000), bool)
    np.fill_diagonal(far, True)  # 100 numbers of 100,000, one in each of 100 channels
    assert mostly_equal(far, 1e-3) == ""
    far[0, 100:200] = True
    assert mostly_equal(far, 1e-3) == "0.2% of the numbers are more than two steps apart, and 0.1% may be"


def test_two_steps_pass_and_nan_does_not():
    expected = np.array([[0.0, 0.5, -3.0]])
    assert not far_apart(expected, expected + 1.0, step=0.5).any()
    assert far_apart(expected, expected + 1.01, step=0.5).all()
    assert far_apart(expected, np.full((1, 3), np.nan), step=0.5).all()


def test_an_output_in_float_is_measured_by_its_span():
    expected = np.array([[0.0, 128.0]])  # a step is 1
    assert far_apart(expected, expected + np.array([[1.9, 2.1]]), step=0.0).tolist() == [[False, True]]


def test_narrow_channels_beside_wide_ones_are_lost():
    real = np.array([[640.0, 0.9, 0.0, 12.0], [100.0, 0.1, 0.0, -3.0]])
    assert lost_channels(real, step=640 / 255) == [1]  # of zeros nothing can be lost, and 12 is five steps
    assert lost_channels(real, step=1e-3) == []
    assert lost_channels(real[0], step=2.5) == []


def test_rare_classes_of_a_softmax_are_not_lost():
    """Beside 0.9 a probability of 0.005 is one step: the format fixes it, and nobody can help that."""
    classes = np.array([[0.9, 0.08, 0.02, 0.005]])
    assert lost_channels(classes, step=1 / 256) == []
    assert lost_channels(classes, step=1 / 255) == [3]


def test_one_channel_that_is_off_is_found_among_many():
    random = np.random.default_rng(0)
    expected = random.normal(size=(50, 200))
    actual = expected + 0.05 * random.normal(size=expected.shape)
    assert far_channel(expected, actual, tolerance=0.5, step=0.02) == ""
    actual[:, 7] = random.normal(size=50)
    assert far_channel(expected, actual, tolerance=0.5, step=0.02).startswith("Channel 7 is the furthest off")
    assert np.sqrt(np.mean((expected - actual) ** 2)) < 0.25  # all together would have passed
