"""The exact path against finite differences, the acoustic sum rule, batches, and what phonopy reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from small_systems import small_model

from asenequip import AllegroCalculator
from asenequip.artifact import save_artifact

phonopy = pytest.importorskip("phonopy")

from asenequip.properties import phonons  # noqa: E402
from asenequip.properties.phonons import make_phonopy  # noqa: E402


@pytest.fixture(scope="module")
def allegro(tmp_path_factory) -> AllegroCalculator:
    path = save_artifact(tmp_path_factory.mktemp("potential") / "small.asnq", small_model())
    return AllegroCalculator(path, device="cpu", dtype="float64")


@pytest.fixture
def copper_oxide() -> Atoms:
    """Rock salt: no forces by symmetry, whatever the potential."""
    return bulk("CuO", "rocksalt", a=4.2)


def test_exact_force_constants_are_the_limit_of_finite_differences(allegro, copper_oxide):
    exact = phonons(copper_oxide, allegro, supercell=2, method="hessian")
    differences = phonons(copper_oxide, allegro, supercell=2, distance=0.01, order=6)
    qpoints = [[0, 0, 0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.13, 0.21, 0.4]]
    np.testing.assert_allclose(exact.frequencies(qpoints), differences.frequencies(qpoints), atol=1e-6)  # THz
    assert exact.evaluations == 0
    assert differences.evaluations == 3 * len(make_displacements(copper_oxide))


def make_displacements(atoms: Atoms) -> list:
    ours = make_phonopy(atoms, 2)
    ours.generate_displacements()
    return ours.supercells_with_displacements


def test_whole_hessians_of_other_calculators_do_as_well(allegro, copper_oxide):
    class Other:
        """As MACE's calculators have it: all rows, (3n, n, 3)."""

        def outcomes(self, frames):
            return allegro.evaluate(frames)

        def get_hessian(self, atoms):
            return allegro.hessian(atoms).reshape(3 * len(atoms), len(atoms), 3)

    exact = phonons(copper_oxide, allegro, supercell=2, method="hessian").phonopy.force_constants
    other = phonons(copper_oxide, Other(), supercell=2, method="hessian").phonopy.force_constants
    np.testing.assert_allclose(other, exact, atol=1e-12)


def test_acoustic_sum_rule(allegro, copper_oxide):
    for method in ("hessian", "displacements"):
        found = phonons(copper_oxide, allegro, supercell=2, method=method)
        assert found.drift < 1e-10  # a potential of distances knows no place: rounding of forces over 0.01 Angstrom
        assert found.enforced_drift <= 1e-12
        # the square root of rounding
        assert np.abs(found.frequencies([0, 0, 0])[0]).min() < 1e-4
    broken = phonons(copper_oxide, Pinned(allegro), supercell=2)
    assert broken.drift > 0.1
    assert broken.enforced_drift < 1e-12
    assert phonons(copper_oxide, Pinned(allegro), supercell=2, sum_rule=False).enforced_drift == broken.drift


class Pinned:
    """A calculator that holds each atom to its place by a spring, as no potential should."""

    def __init__(self, inner: AllegroCalculator) -> None:
        self.inner = inner

    def outcomes(self, frames):
        results = self.inner.evaluate(frames)
        for atoms, result in zip(frames, results, strict=True):
            places = np.round(atoms.get_scaled_positions(wrap=False) * 4) / 4 @ np.asarray(atoms.cell)
            result["forces"] = result["forces"] - 0.5 * (atoms.positions - places)
        return results


def test_displaced_supercells_are_evaluated_together(allegro, copper_oxide):
    calls = []

    class Counted:
        def outcomes(self, frames):
            calls.append(len(frames))
            return allegro.evaluate(frames)

    found = phonons(copper_oxide, Counted(), supercell=2)
    assert calls == [1, found.evaluations]


def test_phonopy_reads_the_files(allegro, copper_oxide, tmp_path):
    for method in ("displacements", "hessian"):
        found = phonons(copper_oxide, allegro, supercell=2, method=method)
        folder = tmp_path / method
        folder.mkdir()
        paths = found.write(folder, mesh=4, temperatures=[0.0, 300.0], points=5)
        assert all(path.stat().st_size > 0 for path in paths)
        expected = found.frequencies([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]])
        read = phonopy.load(folder / "phonopy_params.yaml", log_level=0)
        read.symmetrize_force_constants(show_drift=False)
        read.run_qpoints([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]])
        np.testing.assert_allclose(read.qpoints.frequencies[1], expected[1], atol=1e-6)
        read = phonopy.load(
            folder / "phonopy_params.yaml", force_constants_filename=folder / "FORCE_CONSTANTS", log_level=0
        )
        read.run_qpoints([[0.1, 0.2, 0.3]])
        np.testing.assert_allclose(read.qpoints.frequencies[0], expected[1], atol=1e-6)
    summary = json.loads((tmp_path / "hessian" / "phonons.json").read_text())
    assert summary["supercell_atoms"] == 16
    taken = tmp_path / "taken" / "thermal.png"
    taken.parent.mkdir()
    taken.write_text("mine")
    with pytest.raises(FileExistsError, match=r"thermal\.png"):
        found.write(taken.parent, mesh=4)
    assert list(taken.parent.iterdir()) == [taken]


def test_force_sets_of_a_higher_order_carry_it(allegro, copper_oxide, tmp_path):
    from phonopy.file_IO import parse_FORCE_SETS

    found = phonons(copper_oxide, allegro, supercell=2, order=4)
    found.write(tmp_path, mesh=2, points=3)
    read = make_phonopy(copper_oxide, 2)
    read.dataset = parse_FORCE_SETS(filename=str(tmp_path / "FORCE_SETS"))
    read.produce_force_constants(calculate_full_force_constants=False)
    read.symmetrize_force_constants(show_drift=False)
    # the file has ten digits of the forces: 1e-10 eV/A over 0.01 A
    np.testing.assert_allclose(read.force_constants, found.phonopy.force_constants, atol=1e-7)


def test_a_calculator_without_forces_is_named(copper_oxide):
    class Mute:
        implemented_properties = ("energy",)

        def get_property(self, name, atoms):
            return 0.0

    with pytest.raises(ValueError, match="Mute does not give energies and forces"):
        phonons(copper_oxide, Mute(), supercell=2)
