"""The calculator through the public kit, and what the kit does not reach."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, InputError, PropertyNotImplementedError
from small_systems import small_atoms, small_model

from asenequip import AllegroCalculator
from asenequip.artifact import Potential, load_artifact
from asenequip.evaluate import Evaluator, resolve_device
from asenequip.kernels import native
from asenequip.model.allegro import ModelOutput
from asenequip.testing import DOUBLE, SINGLE, Tolerances, check_calculator, check_names

PRECISIONS = {"float64": DOUBLE, "float32": SINGLE}
SYMBOLS, CUTOFF = ("Cu", "O"), 3.4
needs_compiler = pytest.mark.skipif(not native.compiler(), reason="no C++ compiler on this machine")
PROCESSES = ("works_in_a_new_process", "works_with_joblib")


@pytest.fixture(params=list(PRECISIONS))
def calc(request: pytest.FixtureRequest, small_artifact: Path) -> AllegroCalculator:
    return AllegroCalculator(small_artifact, device="cpu", dtype=request.param)


def tolerances(calc: AllegroCalculator) -> Tolerances:
    return PRECISIONS[calc.parameters["dtype"]]


@pytest.mark.parametrize("name", [n for n in check_names() if n not in PROCESSES])
def test_the_kit(name: str, calc: AllegroCalculator) -> None:
    check_calculator(calc, SYMBOLS, cutoff=CUTOFF, tolerances=tolerances(calc), only=[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_the_kit_in_other_processes(name: str, calc: AllegroCalculator) -> None:
    check_calculator(calc, SYMBOLS, cutoff=CUTOFF, tolerances=tolerances(calc), only=[name])


@pytest.mark.parametrize("seed", range(3))
def test_the_kit_with_other_structures(seed: int, small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64", skin=0.3 * seed)
    check_calculator(calc, SYMBOLS, cutoff=CUTOFF, seed=seed + 1, skip=PROCESSES)


def test_defining_the_class_leaves_the_shared_list_alone() -> None:
    assert AllegroCalculator.implemented_properties is not Calculator.implemented_properties
    assert Calculator.implemented_properties == []


def test_the_two_precisions_agree(small_artifact: Path) -> None:
    double, single = (AllegroCalculator(small_artifact, device="cpu", dtype=d) for d in ("float64", "float32"))
    for seed in range(3):
        a, b = (c.evaluate([small_atoms(seed)])[0] for c in (double, single))
        assert np.abs(a["forces"] - b["forces"]).max() < 1e-4 * max(1.0, np.abs(a["forces"]).max())
        assert abs(a["energy"] - b["energy"]) < 1e-5 * len(small_atoms()) * max(1.0, abs(a["energy"]))


def test_the_order_of_evaluation_does_not_matter(calc: AllegroCalculator) -> None:
    frames = [small_atoms(k) for k in range(6)] + [Atoms()]
    forward = calc.evaluate(frames)
    backward = calc.evaluate(frames[::-1])[::-1]
    for a, b in zip(forward, backward, strict=True):
        assert np.abs(a["forces"] - b["forces"]).max(initial=0.0) <= 10 * tolerances(calc).forces


def test_blocks_of_edges_do_not_change_the_numbers(small_artifact: Path) -> None:
    atoms = small_atoms().repeat((2, 2, 1))
    whole, blocks = (
        Evaluator(small_artifact, device="cpu", dtype="float64", max_edges=m).evaluate([atoms])[0] for m in (10**6, 37)
    )
    for name in ("forces", "energies", "stress"):
        assert np.abs(whole[name] - blocks[name]).max() < 1e-12 * max(1.0, np.abs(whole[name]).max())


def test_alternating_atoms_keep_their_lists(small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    frames = [small_atoms(k).repeat((1, 1, k + 1)) for k in range(4)]
    for _ in range(20):
        for atoms in frames:
            atoms.calc = calc
            atoms.positions += 0.001
            atoms.get_forces()
    assert calc.evaluator.lists.builds == len(frames)


def test_lists_of_atoms_that_are_gone_do_not_pile_up(small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    for k in range(100):
        atoms = small_atoms(k)
        atoms.positions *= 1 + 0.02 * k
        calc.get_potential_energy(atoms)
    assert len(calc.evaluator.lists._kept) <= calc.evaluator.lists.capacity


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float16"),
        ("skin", -1.0),
        ("skin", float("inf")),
        ("skin", "1"),
        ("dtype", "tf32"),
        ("device", "tpu"),
        ("device", "meta"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: object, small_artifact: Path) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' parameter of Evaluator must be .* instead"):
        AllegroCalculator(small_artifact, **{name: value})


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"must be a GPU of this machine: cuda:0, cuda:1\. Got 'cuda:2' instead"):
        resolve_device("cuda:2")


def test_neighbours_too_many_cells_apart_are_refused(calc: AllegroCalculator) -> None:
    """Beyond 2^31 cells the shift between them would not fit into the 32 bits that compiled code reads."""
    atoms = small_atoms()
    atoms.positions[0] += 2.0**32 * atoms.cell[0]
    with pytest.raises(InputError, match=r"more than 2\^31 cells apart"):
        calc.get_potential_energy(atoms)


def test_numbers_of_numpy_will_do(small_artifact: Path) -> None:
    assert AllegroCalculator(small_artifact, skin=np.float32(0.5)).evaluator.lists.skin == 0.5  # type: ignore[arg-type]


def test_a_single_structure_in_place_of_a_list_is_explained(calc: AllegroCalculator, small_artifact: Path) -> None:
    from asenequip import predict

    for call in (calc.evaluate, calc.outcomes, lambda atoms: predict(atoms, small_artifact)):
        with pytest.raises(ValueError, match=r"must be a list of structures(.|\n)*\[atoms\]"):
            call(small_atoms())  # type: ignore[operator]


def test_structures_may_come_from_a_generator(calc: AllegroCalculator) -> None:
    frames = [small_atoms(k) for k in range(3)]
    found = calc.evaluate(atoms for atoms in frames)
    assert [one["energy"] for one in found] == [one["energy"] for one in calc.evaluate(frames)]


def test_parameters_stay_as_they_were_made(calc: AllegroCalculator) -> None:
    with pytest.raises(ValueError, match="cannot be changed: skin"):
        calc.set(skin=2.0)
    assert calc.parameters["skin"] == 1.0


def test_a_positional_device_is_refused(small_artifact: Path) -> None:
    with pytest.raises(TypeError):
        AllegroCalculator(small_artifact, "cpu")  # type: ignore[misc]


def test_unknown_elements_are_listed(calc: AllegroCalculator) -> None:
    with pytest.raises(InputError, match=r"Cu, O, but atoms 0, 2 are Fe, U"):
        calc.get_potential_energy(Atoms("FeCuU", positions=np.eye(3) * 3))


def test_a_number_of_no_element_is_told_and_stops_no_other_structure(calc: AllegroCalculator) -> None:
    for number in (150, -1, -500):
        strange = Atoms(numbers=[29, number], positions=np.eye(3)[:2] * 3)
        first, wrong, last = calc.outcomes([small_atoms(), strange, small_atoms()])
        assert isinstance(wrong, InputError)
        assert f"Cu, O, but atoms 1 are of atomic number {number}." in str(wrong)
        assert first["energy"] == last["energy"]  # type: ignore[index]


def test_the_ghost_element_is_unknown(calc: AllegroCalculator) -> None:
    with pytest.raises(InputError, match="atoms 1 are X"):
        calc.get_potential_energy(Atoms("CuX", positions=[[0, 0, 0], [0, 0, 2]]))


def test_a_refused_structure_leaves_the_results_of_the_last_good_one(calc: AllegroCalculator) -> None:
    atoms = small_atoms()
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    with pytest.raises(InputError):
        calc.calculate(Atoms("Fe"))
    assert calc.results["energy"] == energy
    with pytest.raises(InputError):
        calc.get_potential_energy(Atoms("Fe"))
    assert atoms.get_potential_energy() == energy


def test_no_atoms_at_all_is_explained(calc: AllegroCalculator) -> None:
    with pytest.raises(ValueError, match="has no atoms"):
        calc.calculate()


def test_a_missing_stress_is_explained(calc: AllegroCalculator) -> None:
    with pytest.raises(PropertyNotImplementedError, match="rank 0"):
        calc.get_stress(Atoms("CuO", positions=[[0, 0, 0], [0, 0, 2]]))


# -- copies -----------------------------------------------------------------------------------------------------------


def test_parameters_are_plain(calc: AllegroCalculator) -> None:
    values = json.loads(json.dumps(calc.todict()))
    assert set(values) == {"model", "sha256", "device", "dtype", "skin", "compiled"}


def test_a_moved_file_is_explained(small_artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "here.asnq"
    shutil.copy(small_artifact, path)
    data = pickle.dumps(AllegroCalculator(path, device="cpu", dtype="float64"))
    path.rename(tmp_path / "there.asnq")
    with pytest.raises(FileNotFoundError, match=r"here\.asnq.*not there any more"):
        pickle.loads(data)


def test_a_replaced_file_is_explained(small_artifact: Path, tmp_path: Path) -> None:
    from asenequip.artifact import save_artifact

    path = tmp_path / "here.asnq"
    shutil.copy(small_artifact, path)
    data = pickle.dumps(AllegroCalculator(path, device="cpu", dtype="float64"))
    path.unlink()
    save_artifact(path, small_model(seed=77))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        pickle.loads(data)


def test_a_potential_without_a_file_can_be_copied_but_not_pickled(small_artifact: Path) -> None:
    potential = load_artifact(small_artifact)
    calc = AllegroCalculator(Potential(potential.model, {}, "float64", None, ""), device="cpu", dtype="float64")
    atoms = small_atoms()
    assert copy.deepcopy(calc).get_potential_energy(atoms) == calc.get_potential_energy(atoms)
    with pytest.raises(TypeError, match="save_artifact"):
        pickle.dumps(calc)


@needs_compiler
def test_the_compiled_form_in_float64_is_kept_by_copies(small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64", compiled=True)
    exact = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    atoms = small_atoms()
    assert exact.evaluator.engine is None
    assert np.abs(calc.get_forces(atoms) - exact.get_forces(atoms)).max() < 1e-6
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert other.evaluator.engine is calc.evaluator.engine


def test_results_travel_with_the_pickle(calc: AllegroCalculator) -> None:
    atoms = small_atoms()
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    again = pickle.loads(pickle.dumps(calc))
    assert again.results["energy"] == energy
    assert again.check_state(atoms) == []


# -- beyond ASE's properties ------------------------------------------------------------------------------------------


def test_virials_sum_to_the_stress(calc: AllegroCalculator) -> None:
    atoms = small_atoms()
    virial = calc.virials(atoms).sum(axis=0)
    stress = calc.get_stress(atoms)
    expected = 0.5 * (virial + virial.T) / atoms.get_volume()
    assert np.allclose(stress, [expected[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], atol=1e-6)


def test_descriptors_are_invariant_and_local(small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    atoms = small_atoms()
    atoms.pbc = False
    turned = atoms.copy()
    turned.rotate(50, (1, 2, 3), rotate_cell=True)
    turned.positions += 7.0
    guest = atoms + Atoms("Cu", positions=[[40.0, 0, 0]])
    descriptors = calc.descriptors(atoms)
    assert descriptors.shape == (5, 8 * 3)
    assert np.abs(calc.descriptors(turned) - descriptors).max() < 1e-10
    assert np.abs(calc.descriptors(guest)[:5] - descriptors).max() < 1e-12
    assert not calc.descriptors(guest)[5].any()


def test_descriptors_are_bounded_by_the_budget_of_edges(small_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = small_atoms() * (2, 2, 1)
    whole = Evaluator(small_artifact, device="cpu", dtype="float64").descriptors(atoms)
    bounded = Evaluator(small_artifact, device="cpu", dtype="float64", max_edges=100)
    local, blocks = bounded.model.local, []

    def counted(vectors: torch.Tensor, *inputs: torch.Tensor) -> ModelOutput:
        blocks.append(len(vectors))
        return local(vectors, *inputs)

    monkeypatch.setattr(bounded.model, "local", counted)
    assert np.abs(bounded.descriptors(atoms) - whole).max() < 1e-12
    assert len(blocks) > 1
    assert max(blocks) <= 100


def test_predict_gives_labelled_copies(small_artifact: Path) -> None:
    from asenequip import predict

    frames = [small_atoms(k) for k in range(3)]
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    labelled = predict(frames, small_artifact, dtype="float64", device="cpu")
    for frame, copy_ in zip(frames, labelled, strict=True):
        assert frame.calc is None
        assert copy_ is not frame
        assert copy_.get_potential_energy() == pytest.approx(calc.get_potential_energy(frame), rel=1e-12)
        assert np.allclose(copy_.get_forces(), calc.get_forces(frame), atol=1e-11)
