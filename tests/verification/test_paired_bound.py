"""Bounds on a loss: they hold as often as they say, and equal exact ones where these are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ranvier.verification.paired_bound import PairedSamples, mean_loss, root_mean_square_loss


def accuracy(lost: int, won: int, samples: int) -> PairedSamples:
    """Samples of which some are right only before a change, and some only after it."""
    columns = np.zeros((samples, 2))
    columns[:, 1] = 1
    columns[:lost, 0], columns[lost : lost + won, 0] = 1, -1
    return PairedSamples(columns, np.array([1.0, 1.0]), mean_loss)


@pytest.mark.parametrize(("lost", "samples"), [(0, 50), (0, 300), (1, 200), (5, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_where_samples_only_lose_it_is_the_exact_bound_of_a_fraction(
    lost: int, samples: int, confidence: float
) -> None:
    exact = stats.beta.ppf(confidence, lost + 1, samples - lost)  # Clopper and Pearson 1934
    bound = accuracy(lost, 0, samples).bound(confidence)
    assert bound == pytest.approx(exact, abs=1.5 / samples)
    assert bound >= exact - 0.5 / samples


@pytest.mark.parametrize(("p_lost", "p_won"), [(0.01, 0.0), (0.02, 0.02), (0.05, 0.03), (0.03, 0.06)])
@pytest.mark.parametrize("samples", [40, 150])
def test_the_loss_of_all_data_is_within_the_bound_as_often_as_promised(
    p_lost: float, p_won: float, samples: int
) -> None:
    rng, loss, repeats, within = np.random.default_rng(1), p_lost - p_won, 300, 0
    for _ in range(repeats):
        lost, won, _ = rng.multinomial(samples, [p_lost, p_won, 1 - p_lost - p_won])
        within += accuracy(lost, won, samples).bound(0.95) >= loss
    # 300 repeats of an event of 95 % are below 92 % once in a hundred times.
    assert within / repeats >= 0.92


def test_changed_outputs_are_bounded_as_often_as_promised() -> None:
    """The changes of single samples vary tenfold; the loss of all data comes from 200,000 of them."""
    rng = np.random.default_rng(2)

    def drawn(samples: int) -> np.ndarray:
        return np.stack([0.01 * rng.lognormal(0, 1, samples), rng.uniform(0.5, 1.5, samples)], axis=1)

    of_all = float(root_mean_square_loss(drawn(200_000).sum(axis=0)))
    within = 0
    for _ in range(300):
        columns = drawn(60)
        within += PairedSamples(columns, columns[columns[:, 0].argmax()], root_mean_square_loss).bound(0.95) >= of_all
    assert within / 300 >= 0.92


def test_more_samples_show_what_few_cannot() -> None:
    few = accuracy(1, 1, 100)
    assert few.bound(0.95) > 0.02
    needed = few.needed(0.02, 0.95)
    assert needed is not None
    share = needed / 100
    many = accuracy(round(share), round(share), needed)
    assert many.bound(0.95) == pytest.approx(0.02, abs=0.002)
    assert accuracy(5, 0, 100).needed(0.02, 0.95) is None


def test_nothing_changed_in_the_outputs_costs_nothing() -> None:
    columns = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert PairedSamples(columns, columns[0], root_mean_square_loss).bound(0.95) == 0.0
    silent = PairedSamples(np.array([[0.5, 0.0]]), np.array([0.5, 0.0]), root_mean_square_loss)
    assert silent.estimate == np.inf
