"""Statistics against values known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from asenequip.train.config import ConfigError, Dataset, parse_config
from asenequip.train.data import Frame, make_samples, take_labels
from asenequip.train.statistics import (
    energy_shifts,
    force_rms,
    gather_statistics,
    least_squares_shifts,
    mean_neighbors,
)
from asenequip.train.table import FrameTable, tabulate

FIT_TOLERANCE = 1e-9
"""eV: rounding of a least-squares solution of numbers near one."""


def labelled(atoms: Atoms, energy: float = 0.0, dataset: int = 0, force: float = 0.0) -> Frame:
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.full((len(atoms), 3), force))
    return take_labels(atoms, Dataset(path="x"), "x", dataset)


def table_of(frames: list[Frame], species: list[str], cutoff: float = 3.0) -> FrameTable:
    return tabulate(make_samples(frames, species, np.full((len(species),) * 2, cutoff)), len(species))


def test_fcc_has_twelve_neighbors() -> None:
    table = table_of([labelled(bulk("Cu", cubic=True))], ["Cu"])
    np.testing.assert_array_equal(mean_neighbors(table), [12.0])


def test_isolated_atoms_and_absent_types_do_not_dilute_the_mean() -> None:
    table = table_of([labelled(bulk("Cu", cubic=True)), labelled(Atoms("Cu")), labelled(Atoms("H"))], ["H", "Cu", "Au"])
    np.testing.assert_array_equal(mean_neighbors(table), [12.0, 12.0, 12.0])


def test_force_rms_is_per_type() -> None:
    table = table_of(
        [labelled(bulk("Cu", cubic=True), force=2.0), labelled(bulk("Al", cubic=True), force=1.0)], ["Al", "Cu", "H"]
    )
    overall, per_type = force_rms(table)
    assert overall == pytest.approx(np.sqrt(2.5))
    np.testing.assert_allclose(per_type, [1.0, 2.0, np.sqrt(2.5)])


@given(seed=st.integers(0, 2**32 - 1), types=st.integers(1, 5))
def test_shifts_of_varied_compositions_are_recovered(seed: int, types: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.uniform(-10, 0, types)
    counts = np.vstack([np.eye(types), rng.integers(0, 9, (3 * types, types))]).astype(float)
    counts = counts[counts.sum(axis=1) > 0]
    np.testing.assert_allclose(
        least_squares_shifts(counts, counts @ true), true, atol=FIT_TOLERANCE, rtol=FIT_TOLERANCE
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_one_composition_is_fitted_exactly_and_shared(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.tile(rng.integers(1, 20, 3), (4, 1)).astype(float)
    shifts = least_squares_shifts(counts, np.full(4, -100.0))
    assert counts[0] @ shifts == pytest.approx(-100.0, rel=1e-9)
    np.testing.assert_allclose(shifts, shifts[0])


def test_absent_type_gets_the_mean_and_missing_energies_do_not_count() -> None:
    counts = np.array([[2.0, 0.0], [4.0, 0.0], [1.0, 0.0]])
    shifts = least_squares_shifts(counts, np.array([-6.0, -12.0, np.nan]))
    np.testing.assert_allclose(shifts, [-3.0, -3.0])


def test_isolated_atoms_give_the_shifts_where_all_are_there() -> None:
    model = parse_config({}).model
    table = table_of([labelled(bulk("Cu", cubic=True), -20.0)], ["Cu"])
    isolated = [labelled(Atoms("Cu"), -1.5)]
    assert energy_shifts(model, ["Cu"], table, isolated) == [-1.5]
    assert energy_shifts(model, ["Cu"], table, []) == [-5.0]


def test_isolated_atoms_that_are_wanted_and_missing_are_named() -> None:
    model = parse_config({"model": {"energy_shifts": "isolated"}}).model
    with pytest.raises(ConfigError, match="Cu"):
        energy_shifts(model, ["Cu"], table_of([], ["Cu"]), [])


def test_each_data_set_has_its_own_zero() -> None:
    frames = [labelled(bulk("Cu", cubic=True), -20.0, 0), labelled(bulk("Cu", cubic=True), -48.0, 1)]
    found = gather_statistics(parse_config({}).model, ["Cu"], table_of(frames, ["Cu"]), (), (False, True))
    np.testing.assert_allclose(found.shifts, [-5.0])
    np.testing.assert_allclose(found.offsets, [[0.0], [-7.0]])
