"""Frames on the workers of a dask cluster give the numbers of one process."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_array_equal

from asenequip.cluster import EnvironmentClusters, KStarNN
from asenequip.cluster.neighbours import nearest_neighbours

ARRAYS = ("cluster", "cluster_probability", "log_density", "halo")


def shells(atoms) -> np.ndarray:
    return nearest_neighbours(atoms.positions, 8, period=atoms.cell.lengths(), method="tree").distances[:, 1:]


def frames() -> list:
    found = []
    for seed in range(37):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
        atoms.positions += np.random.default_rng(seed).normal(size=(len(atoms), 3)) * (0.05 if seed % 2 else 0.3)
        found.append(atoms)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("window", [1, 5])
def test_two_workers_give_the_numbers_of_one_process(window):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install dask")
    alone = EnvironmentClusters(shells, density=KStarNN(), window=window, sample=500).fit(frames())
    expected = alone.transform(frames())
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        model = EnvironmentClusters(shells, density=KStarNN(), window=window, sample=500).fit(frames(), client=client)
        found = list(model.stream(iter(frames()), client=client))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ARRAYS:
            assert_array_equal(one.arrays[name], other.arrays[name])
        assert_array_equal(one.positions, other.positions)
