"""K-means in one dimension: by hand, by definition, and against scikit-learn."""

import importlib.util
import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from tfprune.clustering.k_means import k_means, nearest
from tfprune.clustering.shared_values import Sharing

VALUES = np.random.default_rng(0).normal(size=400)


def inertia(values, centroids):
    return ((values[:, None] - centroids) ** 2).min(axis=1).sum()


@pytest.mark.parametrize("init", ["linear", "density", "k-means++", "gaussian mixture"])
@pytest.mark.parametrize("clusters", [2, 5, 16])
def test_it_ends_where_scikit_learn_stays(init, clusters):
    """A fixed point of Lloyd's algorithm is one for scikit-learn's too."""
    found = k_means(VALUES, clusters, init)
    peer = KMeans(clusters, init=found[:, None], n_init=1, tol=0).fit(VALUES[:, None])
    np.testing.assert_allclose(np.sort(peer.cluster_centers_[:, 0]), found, atol=1e-12)
    assert inertia(VALUES, found) == pytest.approx(peer.inertia_)


def test_the_way_from_a_start_is_that_of_scikit_learn():
    start = np.linspace(VALUES.min(), VALUES.max(), 7)
    peer = KMeans(7, init=start[:, None], n_init=1, tol=0, algorithm="lloyd").fit(VALUES[:, None])
    np.testing.assert_allclose(k_means(VALUES, 7, "linear"), np.sort(peer.cluster_centers_[:, 0]), atol=1e-12)


def test_plus_plus_is_about_as_good_as_the_best_of_ten():
    best = KMeans(8, n_init=10, random_state=0).fit(VALUES[:, None]).inertia_
    assert inertia(VALUES, k_means(VALUES, 8)) < 1.05 * best


def test_the_best_split_of_few_numbers_is_found():
    values = np.array([-3.0, -2.5, 0.1, 0.2, 0.4, 6.0])
    cuts = itertools.combinations(range(1, len(values)), 2)
    best = min(sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cut)) for cut in cuts)
    assert inertia(values, k_means(values, 3)) == pytest.approx(best)


def test_numbers_that_come_often_weigh_more():
    np.testing.assert_allclose(k_means(np.array([0.0, 0.0, 0.0, 1.0, 10.0]), 2, "linear"), [0.25, 10.0])


def test_few_different_numbers_are_kept_as_they_are():
    assert k_means(np.array([2.0, 1.0, 2.0]), 4).tolist() == [1.0, 2.0, 2.0, 2.0]


def test_a_centroid_without_members_stays():
    # Of 0, 1, 2, 3 and 4 the middle one is nearest to nothing.
    values = np.array([0.0, 0.1, 0.2, 3.8, 3.9, 4.0])
    assert k_means(values, 5, "linear")[2] == 2.0


def test_density_starts_between_as_many_numbers():
    values = np.concatenate([np.linspace(0, 1, 90), np.linspace(10, 11, 10)])
    few = k_means(values, 10, "density")
    assert (few > 5).sum() == 1


def test_the_nearest_is_found_by_definition():
    centroids = np.array([-1.0, 0.0, 0.5, 3.0])
    expected = np.abs(VALUES[:, None] - centroids).argmin(axis=1)
    np.testing.assert_array_equal(nearest(VALUES, centroids), expected)


def test_a_mixture_starts_at_the_bumps():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(mean, 0.001, 300) for mean in (-0.05, 0.0, 0.02)])
    np.testing.assert_allclose(k_means(values, 3, "gaussian mixture"), [-0.05, 0.0, 0.02], atol=3e-4)


def test_what_is_not_installed_is_named_before_any_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[clustering\]\""):
        Sharing(4, "gaussian mixture").check()
    Sharing(4, "density").check()


def test_the_same_seed_gives_the_same_centroids():
    np.testing.assert_array_equal(k_means(VALUES, 16, seed=3), k_means(VALUES, 16, seed=3))
    assert (k_means(VALUES, 16, seed=3) != k_means(VALUES, 16, seed=4)).any()
