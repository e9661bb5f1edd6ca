"""The tasks: what a trial holds is read back from its spikes alone and compared with the labels."""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ranvier.models.recurrent import recurrent_network, spike
from ranvier.tasks import Batch, copy_task, digits, evidence, match_to_sample

Sample = Callable[..., Batch]

SAMPLES: dict[str, Sample] = {
    "evidence": evidence.sample,
    "match_to_sample": match_to_sample.sample,
    "copy_task": copy_task.sample,
}
SHAPES = {
    "evidence": (5 * (5 + 3) + 80 + 5, 20, 2),
    "match_to_sample": (10 + 50 + 10 + 5, 25, 2),
    "copy_task": (3 * 8 + 20 + 3 * 8, 20, 2),
}
GROUP = 5


@pytest.fixture(params=SAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def is_on(spikes: np.ndarray) -> np.ndarray:
    """Which group of channels spikes most, ``[batch]``, from spikes ``[steps, batch, groups * GROUP]``."""
    return spikes.sum(axis=0).reshape(spikes.shape[1], -1, GROUP).sum(axis=-1).argmax(axis=-1)


def check_well_formed(batch: Batch, steps: int, size: int, inputs: int, classes: int) -> None:
    assert batch.xs.shape == (steps, size, inputs) == (batch.steps, batch.size, batch.inputs)
    assert (batch.ys.shape, batch.mask.shape, batch.classes) == ((steps, size), (steps,), classes)
    assert (batch.xs.dtype, batch.ys.dtype, batch.mask.dtype) == (np.float32, np.int32, np.float32)
    assert set(np.unique(batch.xs)) == set(np.unique(batch.mask)) == {0.0, 1.0}
    assert set(np.unique(batch.ys[batch.mask > 0])) == set(range(classes))


def test_samples_are_well_formed(name: str) -> None:
    steps, inputs, classes = SHAPES[name]
    check_well_formed(SAMPLES[name](40, 0), steps, 40, inputs, classes)


def test_the_seed_decides(name: str) -> None:
    first, again, other = SAMPLES[name](8, 1), SAMPLES[name](8, 1), SAMPLES[name](8, 2)
    assert np.array_equal(first.xs, again.xs)
    assert np.array_equal(first.ys, again.ys)
    assert not np.array_equal(first.xs, other.xs)


@pytest.mark.parametrize("size", [40, 41])
def test_classes_come_equally_often(name: str, size: int) -> None:
    batch = SAMPLES[name](size, 3)
    for labels in batch.ys[batch.mask > 0]:
        assert np.ptp(np.bincount(labels, minlength=batch.classes)) <= 1


def test_evidence_names_the_side_with_more_cues() -> None:
    batch = evidence.sample(300, 0)
    cues = np.stack([is_on(batch.xs[8 * k : 8 * k + 5, :, : 2 * GROUP]) for k in range(5)])
    counts = np.stack([(cues == evidence.LEFT).sum(axis=0), (cues == evidence.RIGHT).sum(axis=0)])
    assert np.array_equal(batch.ys, np.tile(counts.argmax(axis=0), (batch.steps, 1)))
    assert len(np.unique(cues, axis=1).T) == 2**5
    assert np.array_equal(np.flatnonzero(batch.mask), np.arange(120, 125))


def test_evidence_keeps_silent_between_cues_and_recall() -> None:
    batch = evidence.sample(50, 0, noise_rate=0.0)
    by_step = batch.xs.sum(axis=(1, 2))
    silent = [8 * k + step for k in range(5) for step in (5, 6, 7)]
    assert not by_step[silent].any()
    assert not by_step[40:120].any()
    recall = batch.xs[120:].reshape(5, 50, 4, GROUP).sum(axis=(0, 1, 3))
    assert np.flatnonzero(recall).tolist() == [evidence.RECALL]


def test_evidence_has_no_ties() -> None:
    with pytest.raises(ValueError, match="cues=4 is even"):
        evidence.sample(8, 0, cues=4)


@pytest.mark.parametrize("stimuli", [2, 4])
def test_match_to_sample_compares_sample_and_test(stimuli: int) -> None:
    batch = match_to_sample.sample(300, 0, stimuli=stimuli)
    stimulus = batch.xs[:, :, : stimuli * GROUP]
    first, second = is_on(stimulus[:10]), is_on(stimulus[60:70])
    same = np.where(first == second, match_to_sample.SAME, match_to_sample.DIFFERENT)
    assert np.array_equal(batch.ys, np.tile(same, (batch.steps, 1)))
    assert len(set(zip(first, second, strict=True))) == stimuli**2
    assert not stimulus[10:60].any()
    assert not stimulus[70:].any()
    assert np.array_equal(np.flatnonzero(batch.mask), np.arange(70, 75))


def test_match_to_sample_needs_two_stimuli() -> None:
    with pytest.raises(ValueError, match="stimuli=1 leaves no two"):
        match_to_sample.sample(8, 0, stimuli=1)


@pytest.mark.parametrize("symbols", [2, 3])
def test_copy_repeats_the_pattern(symbols: int) -> None:
    batch = copy_task.sample(300, 0, symbols=symbols)
    shown = batch.xs[:, :, : symbols * GROUP]
    pattern = np.stack([is_on(shown[8 * k : 8 * k + 8]) for k in range(3)])
    assert np.array_equal(batch.ys[44:], np.repeat(pattern, 8, axis=0))
    assert len(np.unique(pattern, axis=1).T) == symbols**3
    assert not shown[24:].any()
    cue = batch.xs[:, :, symbols * GROUP : (symbols + 1) * GROUP]
    assert not cue[:44].any()
    assert np.isclose(cue[44:].mean(), 0.4, atol=0.02)
    asked = [44 + 8 * k + step for k in range(3) for step in range(3, 8)]
    assert np.flatnonzero(batch.mask).tolist() == asked


def test_copy_asks_at_some_step() -> None:
    with pytest.raises(ValueError, match="settle_steps=8 must be less than symbol_steps=8"):
        copy_task.sample(8, 0, settle_steps=8)


def test_channels_spike_at_their_rate(name: str) -> None:
    batch = SAMPLES[name](200, 0, rate=1.0, noise_rate=0.25)
    noise, rest = batch.xs[:, :, -GROUP:], batch.xs[:, :, :-GROUP]
    assert np.isclose(noise.mean(), 0.25, atol=0.01)
    groups = rest.reshape(batch.steps, batch.size, -1, GROUP)
    assert np.array_equal(groups.min(axis=-1), groups.max(axis=-1))


def test_digits_are_well_formed() -> None:
    train, test = digits.load()
    check_well_formed(train, 30, 1442, 64, 10)
    check_well_formed(test, 30, 355, 64, 10)
    assert np.array_equal(np.flatnonzero(test.mask), np.arange(20, 30))
    assert not train.xs[20:].any()


def test_digits_spike_as_their_pixels_say() -> None:
    pixels, labels = load_digits(return_X_y=True)
    ink = np.asarray(pixels) / 16
    found = []
    for batch in digits.load(steps=60):
        rates = batch.xs[:60].mean(axis=0)
        squared = (rates**2).sum(axis=1)[:, None] - 2 * rates @ ink.T + (ink**2).sum(axis=1)
        nearest = squared.argmin(axis=1)
        assert np.array_equal(batch.ys, np.tile(np.asarray(labels)[nearest], (batch.steps, 1)))
        assert np.abs(rates - ink[nearest]).mean() < 0.05
        found.append(set(nearest.tolist()))
    assert not found[0] & found[1]


def test_digits_hold_out_the_same_share_of_every_class() -> None:
    train, test = digits.load()
    of_train, of_test = np.bincount(train.ys[0]), np.bincount(test.ys[0])
    assert np.array_equal(of_test, (of_train + of_test) // 5)


def test_digits_seed_decides_spikes_but_not_the_split() -> None:
    first, again, other = (digits.load(seed=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first.xs, again.xs)
    assert not np.array_equal(first.xs, other.xs)
    assert np.array_equal(first.ys, other.ys)
    assert np.abs(first.xs[:20].mean(axis=0) - other.xs[:20].mean(axis=0)).mean() < 0.1


def test_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn"):
        digits.load()


def test_minibatches_give_every_trial_once() -> None:
    batch = match_to_sample.sample(50, 0)
    parts = list(batch.minibatches(16, seed=0))
    assert [part.size for part in parts] == [16, 16, 16]
    known = {batch.xs[:, k].tobytes(): batch.ys[:, k] for k in range(50)}
    assert len(known) == 50
    for part in parts:
        for k in range(16):
            assert np.array_equal(known.pop(part.xs[:, k].tobytes()), part.ys[:, k])
    assert not np.array_equal(parts[0].xs, next(batch.minibatches(16, seed=1)).xs)


def test_accuracy_counts_asked_steps_only() -> None:
    batch = copy_task.sample(30, 0)
    right = np.eye(2)[batch.ys]
    assert batch.accuracy(right) == 1.0
    assert batch.accuracy(np.where(batch.mask[:, None, None] > 0, right, 1 - right)) == 1.0
    assert batch.accuracy(1 - right) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [True, False])
def test_recurrent_network_is_adaptive_lif_with_a_leaky_readout(adaptive: bool) -> None:
    beta = 0.5 if adaptive else 0.0
    model = recurrent_network(6, 8, 3, adaptive=adaptive, dt=2.0, input_gain=4.0, recurrent_gain=2.0, seed=1)
    p = {name: np.asarray(value, np.float64) for name, value in model.params.items()}
    decay = np.exp(-2.0 / np.geomspace(50.0, 400.0, 8))
    v, a, z, r = np.zeros(8), np.zeros(8), np.zeros(8), np.zeros(3)
    state, total = model.state, 0.0
    for x in np.random.default_rng(0).integers(0, 2, (40, 6)).astype(np.float32):
        v = np.exp(-2.0 / 10.0) * v + x @ p["w_in"] + z @ p["w_rec"] + p["b"] - z
        a = decay * a + z
        z = (v - 1 - beta * a > 0).astype(float)
        r = np.exp(-2.0 / 5.0) * r + z @ p["w_out"]
        state, y = model.step(model.params, state, jnp.asarray(x))
        np.testing.assert_allclose(y, r + p["b_out"], atol=1e-4)
        total += z.sum()
    assert 20 < total < 300
    assert set(state) == ({"v", "a", "s"} if adaptive else {"v", "s"})


def test_surrogate_derivative_is_a_triangle() -> None:
    excess = jnp.array([-1.5, -1.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(spike(excess), [0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(jax.vmap(jax.grad(spike))(excess), [0, 0, 0.15, 0.3, 0.15, 0], atol=1e-7)
