"""Frames on the workers of a dask cluster give the numbers of one process."""

from __future__ import annotations

import gc
import pickle
from concurrent.futures import Future

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_array_equal

from asenequip.cluster import EnvironmentClusters, KStarNN
from asenequip.cluster.descriptors import windowed
from asenequip.cluster.distributed import CHUNK, described
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


class Composition:
    """A descriptor that takes its elements from the first frame it sees, as SOAP does."""

    def __init__(self) -> None:
        self.elements: list[int] = []

    def __call__(self, atoms: Atoms) -> np.ndarray:
        self.elements = self.elements or sorted(set(atoms.numbers.tolist()))
        return (atoms.numbers[:, None] == self.elements).astype(float)


class TwoWorkers:
    """The part of a dask client that is used, with workers that take chunks in turns, each with a copy of its own."""

    def __init__(self) -> None:
        self.turn = 0

    def scatter(self, value, broadcast: bool, hash: bool) -> list:
        return [pickle.loads(pickle.dumps(value)) for _ in range(2)]

    def nthreads(self) -> dict[str, int]:
        return {"first": 1, "second": 1}

    def submit(self, function, piece, shared, *more, pure: bool) -> Future:
        self.turn += 1
        found: Future = Future()
        found.set_result(function(piece, shared[self.turn % 2], *more))
        return found


def test_what_a_descriptor_learns_from_the_first_frame_all_workers_know():
    alloy, copper = Atoms("CuAu", positions=np.eye(3)[:2]), Atoms("Cu2", positions=np.eye(3)[:2])
    trajectory = [alloy] * CHUNK + [copper] * CHUNK
    expected = [rows for _, _, rows in windowed(trajectory, Composition())]
    descriptor = Composition()
    found = [rows for _, _, rows in described(iter(trajectory), descriptor, 1, TwoWorkers())]
    assert_array_equal(found, expected)
    assert descriptor.elements == [29, 79]


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
    del cluster, client
    gc.collect()  # what is left of the cluster goes here, where its warnings are ignored
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ARRAYS:
            assert_array_equal(one.arrays[name], other.arrays[name])
        assert_array_equal(one.positions, other.positions)
