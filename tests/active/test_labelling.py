"""Labelling: failures kept apart with their reasons, nothing twice, nothing lost by a kill or a full disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from labellers_for_tests import calls

from asenequip.active import LabelStore, label_frames, make_labeller, structure_key
from asenequip.active.store import Outcome, StoreLockedError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def copper(fault: int, seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    atoms.positions[0, 0] = fault
    return atoms


def faulty(folder: Path):
    return make_labeller("labellers_for_tests:faulty", folder=str(folder))


def test_keys_name_structures_not_objects():
    atoms = copper(0, 1)
    same = atoms.copy()
    same.set_velocities(np.ones((4, 3)))
    same.info["name"] = "other"
    assert structure_key(atoms) == structure_key(same)
    changes = [lambda a: a.positions.__iadd__(1e-3), lambda a: a.set_pbc(False), lambda a: a.set_cell(a.cell * 1.01)]
    changes += [lambda a: a.symbols.__setitem__(0, "Al"), lambda a: a.set_initial_charges([1, 0, 0, 0])]
    for change in changes:
        other = atoms.copy()
        change(other)
        assert structure_key(other) != structure_key(atoms)
    assert structure_key(atoms, "emt") != structure_key(atoms, "tblite")


def test_labels_are_the_calculators_own(tmp_path):
    frames = [copper(0, k) for k in range(3)]
    found = label_frames(frames, make_labeller("emt"), LabelStore(tmp_path / "labels.db"), workers=2)
    assert not found.failures
    for atoms, labelled in zip(frames, found.frames, strict=True):
        reference = atoms.copy()
        reference.calc = EMT()
        assert labelled.get_potential_energy() == pytest.approx(reference.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(labelled.get_forces(), reference.get_forces(), atol=1e-12)
        np.testing.assert_allclose(labelled.get_stress(), reference.get_stress(), atol=1e-12)


def test_failures_are_kept_apart_with_their_reasons_and_good_labels_arrive(tmp_path):
    frames = [copper(fault, 10 + fault) for fault in range(7)]
    store = LabelStore(tmp_path / "labels.db")
    found = label_frames(frames, faulty(tmp_path), store, workers=2, timeout=15.0, retries=1)
    assert len(found.frames) == 2  # the good one, and the one that crashed the first time
    reasons = {round(f.atoms.positions[0, 0]): f.reason for f in found.failures}
    assert reasons == {1: "crashed", 2: "timeout", 3: "unconverged", 4: "error", 5: "not finite"}
    attempts = {f.reason: f.attempts for f in found.failures}
    assert attempts == {"crashed": 2, "timeout": 1, "unconverged": 1, "error": 2, "not finite": 1}
    assert "no basis set" in next(f.detail for f in found.failures if f.reason == "error")
    before = len(calls(tmp_path))
    again = label_frames(frames, faulty(tmp_path), store)
    assert again.known == 7
    assert len(calls(tmp_path)) == before
    assert len(again.frames) == 2
    assert store.counts()["failed: timeout"] == 1


def test_equal_structures_are_labelled_once(tmp_path):
    frames = [copper(0, 1), copper(0, 1), copper(0, 2)]
    found = label_frames(frames, faulty(tmp_path), LabelStore(tmp_path / "labels.db"), workers=2)
    assert len(calls(tmp_path)) == 2
    assert len(found.frames) == 3


def test_a_full_disk_loses_no_label_that_was_written(tmp_path, monkeypatch):
    frames = [copper(0, k) for k in range(4)]
    store = LabelStore(tmp_path / "labels.db")
    write, written = store._database.write, []

    def full(*arguments, **options):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(1)
        return write(*arguments, **options)

    monkeypatch.setattr(store._database, "write", full)
    with pytest.raises(OSError, match="No space left"):
        label_frames(frames, faulty(tmp_path), store)
    fresh = LabelStore(tmp_path / "labels.db")
    kept = {atoms.info["structure"] for atoms in fresh.frames()}
    assert len(kept) == 2
    found = label_frames(frames, faulty(tmp_path), fresh)
    assert len(found.frames) == 4
    assert found.known == 2


def test_two_processes_do_not_label_into_one_store(tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    with store.lock(), pytest.raises(StoreLockedError, match="Another process"):
        label_frames([copper(0, 1)], make_labeller("emt"), LabelStore(tmp_path / "labels.db"))


def test_a_label_is_never_replaced_and_a_failure_may_be(tmp_path):
    store, atoms = LabelStore(tmp_path / "labels.db"), copper(0, 1)
    store.add("sx", atoms, Outcome({}, "timeout", "long"))
    store.add("sx", atoms, Outcome({"energy": 1.0, "forces": np.zeros((4, 3))}))
    store.add("sx", atoms, Outcome({}, "crashed", "late"))
    assert store.get("sx").get_potential_energy() == 1.0
    assert store.failures() == []
    with closing(sqlite3.connect(store.path)) as file:
        assert file.execute("select count(*) from systems").fetchone() == (1,)


DRIVER = """
import sys
sys.path.insert(0, {here!r})
from ase.io import read
from asenequip.active import LabelStore, label_frames, make_labeller
def watch(done, total):
    print(done, flush=True)
labeller = make_labeller("labellers_for_tests:faulty", folder={folder!r})
label_frames(read({frames!r}, ":"), labeller, LabelStore({store!r}), workers=2, watch=watch)
"""


def test_a_killed_driver_leaves_its_labels_and_its_workers_end(tmp_path):
    from ase.io import write

    frames = [copper(0, k) for k in range(40)]
    frames[-1] = copper(2, 99)  # hangs: the driver is alive when it is killed
    write(tmp_path / "frames.extxyz", frames)
    store = tmp_path / "labels.db"
    script = DRIVER.format(
        here=str(HERE), folder=str(tmp_path), frames=str(tmp_path / "frames.extxyz"), store=str(store)
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as driver:
        for line in driver.stdout:
            if line.strip() == "5":
                break
        driver.kill()
    assert len(LabelStore(store).frames()) >= 5
    found = label_frames(frames[:-1], faulty(tmp_path), LabelStore(store), workers=2)
    assert len(found.frames) == 39
    names = calls(tmp_path)
    assert len(names) - len(set(names)) <= 2  # at most one of each worker was not stored when the driver was killed


def test_names_that_mean_nothing_are_refused_at_once():
    with pytest.raises(ValueError, match="ASE has no calculator 'nonsense'"):
        make_labeller("nonsense")
    with pytest.raises(ValueError, match="must be an importable function"):
        make_labeller("labellers_for_tests:absent")
    with pytest.raises(ValueError, match="cannot be made with the options"):
        make_labeller("labellers_for_tests:faulty", directory="x")
    with pytest.raises(ValueError, match="must be a calculator that gives energy and forces"):
        make_labeller("os:getcwd")
    with pytest.raises(ValueError, match="Silent gives no forces"):
        make_labeller("labellers_for_tests:Silent")
    with pytest.raises(ValueError, match="must be plain"):
        make_labeller("labellers_for_tests:faulty", folder=object())


def test_quantum_chemistry_by_name(tmp_path):
    pytest.importorskip("tblite")
    atoms = molecule("H2O")
    found = label_frames([atoms], make_labeller("tblite:GFN1-xTB"), LabelStore(tmp_path / "labels.db"))
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    assert found.frames[0].get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def pseudopotentials() -> Path:
    """The folder of Quantum ESPRESSO's example pseudopotentials, or a skip with its reason."""
    for folder in (os.environ.get("ESPRESSO_PSEUDO"), "/usr/share/espresso/pseudo"):
        if folder and (Path(folder) / "Si.pz-vbc.UPF").exists() and shutil.which("pw.x"):
            return Path(folder)
    return pytest.skip("pw.x or Si.pz-vbc.UPF is not there; set ESPRESSO_PSEUDO to the folder that holds it")


@pytest.mark.slow
def test_silicon_by_density_functional_theory(tmp_path):
    """Quantum ESPRESSO: forces are the slope of the energy; a cycle that is cut short is told as unconverged."""
    common = {"pseudo_dir": str(pseudopotentials()), "pseudopotentials": {"Si": "Si.pz-vbc.UPF"}, "kpts": [2, 2, 2]}
    control = {"control": {"tprnfor": True, "tstress": True}, "system": {"ecutwfc": 16}}
    silicon = bulk("Si")
    silicon.rattle(0.05, seed=0)
    moved = [silicon.copy() for _ in range(2)]
    for atoms, step in zip(moved, (-0.01, 0.01), strict=True):
        atoms.positions[1, 2] += step
    labeller = make_labeller("espresso", **common, input_data={**control, "electrons": {"conv_thr": 1e-10}})
    found = label_frames([silicon, *moved], labeller, LabelStore(tmp_path / "labels.db"), timeout=600.0)
    assert not found.failures
    energies = [atoms.get_potential_energy() for atoms in found.frames]
    slope = (energies[2] - energies[1]) / 0.02
    assert found.frames[0].get_forces()[1, 2] == pytest.approx(-slope, abs=5e-3)  # third order of a step of 0.01 A
    assert np.isfinite(found.frames[0].get_stress()).all()
    short = make_labeller("espresso", **common, input_data={**control, "electrons": {"electron_maxstep": 1}})
    cut = label_frames([silicon], short, LabelStore(tmp_path / "labels.db"), timeout=600.0)
    assert [failure.reason for failure in cut.failures] == ["unconverged"]


@pytest.mark.slow
def test_dask_workers_label_and_their_failures_are_kept_apart(tmp_path):
    distributed = pytest.importorskip("distributed")
    frames = [copper(fault, 20 + fault) for fault in (0, 1, 3)]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = label_frames(frames, faulty(tmp_path), LabelStore(tmp_path / "labels.db"), client=client)
    assert len(found.frames) == 1
    assert {f.reason for f in found.failures} == {"crashed", "unconverged"}


@pytest.mark.slow
def test_a_killed_dask_worker_costs_nothing_but_its_label_under_way(tmp_path):
    distributed = pytest.importorskip("distributed")
    frames = [copper(fault, 40 + k) for k, fault in enumerate((0, 7, 0))]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = label_frames(frames, faulty(tmp_path), LabelStore(tmp_path / "labels.db"), client=client)
    assert len(found.frames) == 3
    assert found.failures == []
    names = calls(tmp_path)
    assert len(set(names)) == 3
    assert len(names) <= 3 + 3  # results that only the killed worker held are computed again
