"""Batches and learning rates of the loop."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from asenequip.train.config import parse_config
from asenequip.train.loop import pack
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
