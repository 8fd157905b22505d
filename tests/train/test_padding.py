"""Filled-up batches: the same loss and gradients, and few sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from train_frames import label_with_emt

from asenequip.train.batching import Loader, pack
from asenequip.train.config import parse_config
from asenequip.train.data import collate
from asenequip.train.loss import LossFunction
from asenequip.train.padding import shapes_for
from asenequip.train.prepare import prepare, read_data
from asenequip.train.step import eager_step
from asenequip.train.table import tabulate

ROUNDING = 1e-11
"""Relative: float64 sums in blocks of another size."""


@pytest.mark.parametrize("pair", [None, {"kind": "zbl"}])
def test_padding_changes_no_gradient(settings: Callable[..., dict[str, Any]], pair: dict[str, str] | None) -> None:
    values = settings(dtype="float64", model={"pair": pair}, data={"split": {"valid": 0, "test": 0}})
    config = parse_config(values)
    prepared = prepare(config, read_data(config, label_with_emt(5, seed=5)))
    samples, loss = prepared.samples["train"], LossFunction(config.loss, prepared.species)
    table = tabulate(samples, 2)
    batch, step = collate(samples[:2]), eager_step(prepared.model, loss)
    padded = shapes_for(table, 4, None, config.model.cutoff).pad(batch)
    assert padded.graph.num_edges > batch.graph.num_edges
    assert padded.graph.num_frames > 2
    arguments = loss.divisors(samples[:2]), loss.coefficients(1.0)
    wanted, found = (step(one, *arguments) for one in (batch, padded))
    torch.testing.assert_close(found.loss, wanted.loss, rtol=ROUNDING, atol=0)
    torch.testing.assert_close(found.weights, wanted.weights, rtol=0, atol=0)
    for a, b in zip(wanted.gradients, found.gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=ROUNDING, atol=ROUNDING * float(a.abs().max()))


def test_batches_have_four_sizes_at_most(settings: Callable[..., dict[str, Any]]) -> None:
    config = parse_config(settings(data={"split": {"valid": 0, "test": 0}}))
    frames = [atoms * (1, 1, 1 + k % 3) for k, atoms in enumerate(label_with_emt(30, seed=5))]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    prepared = prepare(config, read_data(config, frames))
    samples = prepared.samples["train"]
    table = tabulate(samples, 2)
    edges = table.num_edges().tolist()
    shapes = shapes_for(table, 4, 1500, config.model.cutoff)
    sizes = set()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(30).tolist()
        batches = pack(order, edges, 4, 1500)
        for batch in Loader(samples, prepared.statistics.offsets, shapes=shapes).load(batches):
            assert batch is not None
            sizes.add((batch.graph.num_frames, batch.graph.num_atoms, batch.graph.num_edges))
    assert sizes <= set(shapes.levels)
    assert len(shapes.levels) == 4
