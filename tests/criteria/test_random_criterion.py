"""Random scores: repeatable, and others for each group and seed."""

from tfprune.criteria import ChannelView, Random


def test_scores_are_repeatable_and_differ():
    view, other = ChannelView("first", 50, ()), ChannelView("second", 50, ())
    scores = Random().score(view)
    assert scores.tolist() == Random().score(view).tolist()
    assert len({*scores.tolist(), *Random().score(other).tolist(), *Random(1).score(view).tolist()}) == 150
    assert 0.3 < scores.mean() < 0.7
