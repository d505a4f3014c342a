import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components

from tfprune.graph.record import Trace, connected_components


def test_ties_are_transitive():
    trace = Trace()
    first, second, third = (trace.new_channels(2) for _ in range(3))
    trace.tie(first, second)
    trace.tie(second, third)
    assert trace.components().tolist() == [0, 1, 0, 1, 0, 1]


def test_ties_broadcast():
    trace = Trace()
    trace.tie(trace.new_channels(1), trace.new_channels(3))
    assert trace.components().tolist() == [0, 0, 0, 0]


def test_a_tie_of_other_lengths_is_an_error():
    trace = Trace()
    with pytest.raises(ValueError, match="broadcast"):
        trace.tie(trace.new_channels(2), trace.new_channels(3))


def test_an_opaque_tensor_freezes_what_it_meets_and_ties_nothing():
    trace = Trace()
    channels = trace.new_channels(3)
    opaque = trace.new_opaque((8, 8, 3), "because")
    trace.tie(opaque, channels.reshape(1, 1, 3))
    assert trace.components().tolist() == [0, 1, 2, 3]
    frozen = np.concatenate([channels for channels, reason in trace.frozen if reason == "because"])
    assert set(frozen.tolist()) == {0, 1, 2}


def test_nothing_tied():
    trace = Trace()
    trace.new_channels(3)
    assert trace.components().tolist() == [0, 1, 2]


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_equal_those_of_scipy(case):
    size, edges = case
    first, second = np.array(edges, int).reshape(-1, 2).T
    labels = connected_components(np.arange(size), first, second)
    graph = coo_matrix((np.ones(len(edges)), (first, second)), shape=(size, size))
    theirs = scipy_components(graph, directed=False)[1]
    smallest = {label: int(np.flatnonzero(theirs == label)[0]) for label in theirs.tolist()}
    assert labels.tolist() == [smallest[label] for label in theirs.tolist()]


def test_a_long_path_is_one_component():
    order = np.random.default_rng(0).permutation(1000)
    labels = connected_components(np.arange(1000), order[:-1], order[1:])
    assert not labels.any()
    assert keras.ops.shape(labels) == (1000,)
