"""Batches and learning rates of the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from asenequip.artifact import load_artifact
from asenequip.train import fit
from asenequip.train.batching import epoch_order, pack
from asenequip.train.config import Dataset, parse_config
from asenequip.train.loop import Trainer
from asenequip.train.schedule import MovingAverage, Plateau, learning_rate


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


def test_average_is_that_of_its_formula() -> None:
    """The decay is (1 + t) / (10 + t) until it meets its limit, here after the fifth step."""
    random, weight = np.random.default_rng(0), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    average, wanted = MovingAverage.of([weight], 0.36), np.ones(3)
    for step in range(9):
        values = random.normal(size=3)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(values))
        average.update([weight], step)
        decay = min(0.36, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * values
    np.testing.assert_allclose(average.weights[0].numpy(), wanted, rtol=1e-14)
    average.swap([weight])
    np.testing.assert_allclose(weight.detach().numpy(), wanted, rtol=1e-14)
    np.testing.assert_array_equal(average.weights[0].numpy(), values)


def test_clipped_gradients_and_averaged_weights_of_a_run(
    frames: list[Atoms], settings: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No gradient is longer than `clip`; what is stored is the average of the weights, not the last of them."""
    norms, trainers, step = [], [], Trainer._step

    def watched(self: Trainer, *arguments: Any) -> bool:
        done = step(self, *arguments)
        norms.append(float(torch.cat([p.grad.flatten() for p in self.parameters]).norm()))  # type: ignore[union-attr]
        trainers.append(self)
        return done

    monkeypatch.setattr(Trainer, "_step", watched)
    averages: list[list[torch.Tensor]] = []
    save = Trainer._save_best
    monkeypatch.setattr(
        Trainer, "_save_best", lambda self: (averages.append([w.clone() for w in self.average.weights]), save(self))
    )
    fit(frames, settings(training={"clip": 1e-3, "ema": 0.9}))
    assert len(norms) == 12
    assert max(norms) == pytest.approx(1e-3, rel=1e-4)
    stored = load_artifact(tmp_path / "run" / "model.asnq").model.state_dict()
    names = [name for name, p in trainers[0].model.named_parameters() if any(p is q for q in trainers[0].parameters)]
    for name, average in zip(names, averages[-1], strict=True):
        torch.testing.assert_close(stored[name], average, rtol=0, atol=0)
