"""Mixtures: the draws of a seed are one stream, whoever reads it and however often it is resumed."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignite.data import Curriculum, Mixture, Stage, reservoir_sample
from alignite.errors import UsageError

PARTS = {"a": 100, "b": 5000, "c": 1_000_000}


@given(
    world=st.integers(1, 7),
    cuts=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    exhaust=st.sampled_from(["repeat", "stop", "drop"]),
)
def test_ranks_and_resumed_runs_read_the_one_stream(world: int, cuts: tuple[int, int], exhaust: str) -> None:
    def new() -> Mixture:
        return Mixture({"a": 40, "b": 90, "c": [None] * 7}, temperature=2, exhaust=exhaust, seed=3)  # type: ignore[arg-type]

    whole = np.stack(new().draw(0, 300))
    gathered = np.full_like(whole, -1)
    for rank in range(world):
        sources, rows = new().draw(rank, 300, world)
        gathered[:, rank::world] = sources, rows
    assert np.array_equal(gathered, whole)

    first, second = sorted(cuts)
    parts, mixture = [np.stack(new().draw(0, first))], new()
    mixture.draw(0, first)
    resumed = new()
    resumed.load_state_dict(json.loads(json.dumps(mixture.state_dict())))
    parts.append(np.stack(resumed.draw(first, second)))
    again = pickle.loads(pickle.dumps(resumed))
    parts.append(np.stack(again.draw(second, 300)))
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert np.array_equal(np.stack(again.draw(0, 300)), whole)  # and backwards


def test_rates_and_what_will_be_seen() -> None:
    mixture = Mixture(PARTS, cap=3000, temperature=2)
    assert list(mixture.rates().values()) == pytest.approx(
        [0.08365085000086823, 0.4581745749995658, 0.4581745749995658], abs=1e-12
    )
    shares = mixture.describe(200_000)
    drawn = np.bincount(mixture.draw(0, 200_000)[0])
    assert [share.documents for share in shares] == drawn.tolist()
    assert shares[0].epochs == drawn[0] / 100


def test_nested_mixtures_and_a_name_at_two_places() -> None:
    inner = Mixture({"a": 100, "b": 300})
    mixture = Mixture({"inner": inner, "a": 100, "c": 7}, weights={"inner": 2, "a": 1, "c": 1})
    assert mixture.rates() == {"a": 0.375, "b": 0.375, "c": 0.25}


def test_wrong_mixtures_are_named() -> None:
    for call, words in [
        (lambda: Mixture({}), "nothing is mixed"),
        (lambda: Mixture({"a": 0}), "empty"),
        (lambda: Mixture({"a": -1}), "rows are -1"),
        (lambda: Mixture(PARTS, weights={"a": 1, "z": 2}), "no source 'z'"),
        (lambda: Mixture(PARTS, weights={"a": 1}), "missing"),
        (lambda: Mixture(PARTS, cap=-3), "cap is -3"),
        (lambda: Mixture(PARTS, unit="tokens"), "tokens are not known"),
        (lambda: Mixture(PARTS, exhaust="again"), "cannot be read"),  # type: ignore[arg-type]
        (lambda: Mixture(PARTS, seed=-1), "seed is -1"),
        (lambda: Mixture(PARTS).draw(5, 3), "no draws"),
        (lambda: Mixture(PARTS).load_state_dict({"drawn": 3, "counts": [1, 1]}), "not one of this mixture"),
        (lambda: Curriculum([Stage(Mixture({"a": 1}), 5, replay=0.1)]), "no earlier stage"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()


@given(st.integers(0, 250), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0, 50]))
def test_a_curriculum_continues_and_keeps_its_quota(cut: int, replay: float, ramp: int) -> None:
    tasks, chat = Mixture({"flan": 60, "p3": 30}), Mixture({"chat": 80})
    stages = [Stage(tasks, 50), Stage(chat, 200, replay=replay, ramp=ramp)]
    whole = np.stack(Curriculum(stages, seed=1).draw(1000))
    assert whole.shape == (3, 250)
    begun, resumed = Curriculum(stages, seed=1), Curriculum(stages, seed=1)
    first = np.stack(begun.draw(cut))
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert np.array_equal(np.concatenate([first, np.stack(resumed.draw(1000))], axis=1), whole)
    assert np.array_equal(whole[1:, :50], np.stack(Mixture({"flan": 60, "p3": 30}, seed=1).draw(0, 50)))
    if ramp == 0:
        replayed = np.cumsum(whole[1, 50:] < 2)
        assert (np.abs(replayed - replay * np.arange(1, 201)) <= 0.5 + 1e-9).all()


def test_samples_are_uniform_hold_no_stream_and_begin_with_smaller_samples() -> None:
    assert reservoir_sample(range(3), 5, seed=1) in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    assert reservoir_sample(iter("abc"), 0) == []
    assert reservoir_sample(range(10**5), 20, 4) == reservoir_sample(iter(range(10**5)), 20, 4)
    seen = np.zeros(12)
    for seed in range(6000):
        sample = reservoir_sample(iter(range(12)), 4, seed)
        assert len(set(sample)) == 4
        seen[sample[:2]] += 1
    assert ((seen - 1000) ** 2 / 1000).sum() < 31.3  # the 99.9% point for 11 degrees of freedom
