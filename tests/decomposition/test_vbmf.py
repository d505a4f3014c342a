"""The rank of a noisy matrix."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tfprune.decomposition import CP, VBMF, Tucker
from tfprune.decomposition.vbmf import vbmf_rank


def noisy(rank, noise, shape=(40, 90), seed=0):
    random = np.random.default_rng(seed)
    signal = random.normal(size=(shape[0], rank)) @ random.normal(size=(rank, shape[1]))
    return signal + noise * random.normal(size=shape)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_known_rank_is_found(rank, noise):
    assert vbmf_rank(noisy(rank, noise)) == vbmf_rank(noisy(rank, noise).T) == rank


def test_noise_has_no_rank():
    assert [vbmf_rank(noisy(0, 1.0, seed=seed)) for seed in range(4)] == [0] * 4
    assert vbmf_rank(np.zeros((3, 4))) == 0


def test_signal_below_the_noise_is_not_found():
    # For square matrices it begins where the squared singular value is 2.5129 times columns times variance.
    random = np.random.default_rng(1)
    left, right = random.normal(size=(200, 1)), random.normal(size=(1, 200))
    unit = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    matrix = random.normal(size=(200, 200))
    seen = [vbmf_rank(matrix + np.sqrt(share * 2.5129 * 200) * unit) for share in (0.5, 2.0)]
    assert seen == [0, 1]


def test_noise_variance_minimizes_the_free_energy():
    # Against SciPy on the free energy of Nakajima et al., equation by equation.
    squares = np.linalg.svd(noisy(5, 0.7), compute_uv=False) ** 2
    alpha, columns = 40 / 90, 90
    edge = (1 + 2.5129 * np.sqrt(alpha)) * (1 + alpha / (2.5129 * np.sqrt(alpha)))

    def free_energy(variance):
        x = squares / (columns * variance)
        psi = x - np.log(x)
        above = x[x > edge]
        tau = 0.5 * (above - (1 + alpha) + np.sqrt((above - (1 + alpha)) ** 2 - 4 * alpha))
        return psi.sum() + (np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau).sum()

    best = minimize_scalar(free_energy, bounds=(0.2, 1.0), method="bounded").x
    assert best == pytest.approx(0.49, rel=0.1)  # 0.7 squared
    assert vbmf_rank(noisy(5, 0.7)) == np.count_nonzero(squares > columns * best * edge) == 5


def test_ranks_of_methods_are_those_of_their_matrices():
    random = np.random.default_rng(0)
    inputs, outputs = random.normal(size=(30, 3)), random.normal(size=(5, 40))
    kernel = np.einsum("nr,hwrs,sm->hwnm", inputs, random.normal(size=(3, 3, 3, 5)), outputs)
    kernel += 0.05 * random.normal(size=kernel.shape)
    assert Tucker().noise_ranks(kernel) == (3, 5)
    assert CP().noise_ranks(kernel) == (5,)


@pytest.mark.parametrize("multiplier", [0, -1, True, "2"])
def test_multiplier_is_checked(multiplier):
    with pytest.raises(ValueError, match="multiplier must be a number above 0"):
        VBMF(multiplier)
