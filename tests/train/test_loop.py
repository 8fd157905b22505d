"""Batches and learning rates of the loop."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asenequip.train.batching import epoch_order, pack
from asenequip.train.config import Dataset, parse_config
from asenequip.train.schedule import Plateau, learning_rate


@given(
    edges=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    size=st.integers(1, 6),
    budget=st.none() | st.integers(1, 120),
)
def test_batches_hold_every_frame_once_within_the_budget(edges: list[int], size: int, budget: int | None) -> None:
    order = list(range(len(edges)))[::-1]
    batches = pack(order, edges, size, budget)
    assert [k for batch in batches for k in batch] == order
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert budget is None or len(batch) == 1 or sum(edges[k] for k in batch) <= budget


def test_cosine_is_that_of_its_formula() -> None:
    settings = parse_config(
        {"training": {"learning_rate": 0.1, "warmup_steps": 4, "final_learning_rate": 0.2}}
    ).training
    assert math.isclose(learning_rate(settings, 0, 0.0, Plateau()), 0.1 * 1 / 5)
    half = 0.1 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert math.isclose(learning_rate(settings, 100, 0.5, Plateau()), half)
    assert math.isclose(learning_rate(settings, 100, 1.0, Plateau()), 0.1 * 0.2)


def test_plateau_waits_and_then_divides() -> None:
    changes = {"schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5, "warmup_steps": 0}
    settings = parse_config({"training": {**changes, "learning_rate": 1.0}}).training
    plateau, rates = Plateau(), []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9):
        plateau.observe(loss, settings)
        rates.append(learning_rate(settings, 9, 0.0, plateau))
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_part_of_a_data_set_is_drawn_anew_for_each_epoch() -> None:
    sets = [Dataset(path="new"), Dataset(path="old", per_epoch=0.25), Dataset(path="few", per_epoch=3)]
    datasets = np.repeat([0, 1, 2], [10, 40, 2])
    orders = [epoch_order(7, epoch, datasets, sets).tolist() for epoch in range(60)]
    for order in orders:
        assert np.bincount(datasets[order]).tolist() == [10, 10, 2]
        assert len(set(order)) == len(order)
    assert set().union(*orders) == set(range(52))
    assert orders[3] == epoch_order(7, 3, datasets, sets).tolist()
    assert orders[3] != orders[4]


@given(edges=st.lists(st.integers(1, 50), min_size=2, max_size=30), size=st.integers(1, 6), budget=st.integers(1, 120))
def test_rest_of_an_epoch_packs_as_within_the_whole(edges: list[int], size: int, budget: int) -> None:
    """What lets a run go on in the middle of an epoch."""
    order = list(range(len(edges)))
    whole = pack(order, edges, size, budget)
    for done in range(len(whole)):
        left = order[sum(map(len, whole[:done])) :]
        assert pack(left, edges, size, budget) == whole[done:]
