"""Labelled frames in the formats of the field, by the shortest way: the file alone, no settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from train_frames import label_with_emt
from typer.testing import CliRunner

from asenequip.train import fit, load_config, pace
from asenequip.train.cli import app
from asenequip.train.config import ConfigError, Dataset, parse_config
from asenequip.train.rundir import RunDirectory
from asenequip.train.sources import load_data, read_dataset

Settings = Callable[..., dict[str, Any]]
DIGITS = 1e-7
"""eV, eV/A: text formats hold eight decimals."""


def labelled(atoms: Atoms, **results: Any) -> Atoms:
    """A copy that carries results as a file's frame does."""
    out = atoms.copy()
    out.calc = SinglePointCalculator(out, **results)
    return out


def emt(atoms: Atoms, amplitude: float = 0.05) -> Atoms:
    """Rattled, and labelled with what a code would give of it: stress in crystals only."""
    atoms = atoms.copy()
    atoms.rattle(amplitude, seed=len(atoms))
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    return labelled(atoms, **results, **({"stress": atoms.get_stress()} if atoms.pbc.all() else {}))


@pytest.mark.parametrize("ending", ["extxyz", "xyz", "extxyz.gz", "xyz.bz2", "extxyz.xz", "traj", "json", "db"])
def test_every_format_gives_the_same_labels(tmp_path: Path, frames: list[Atoms], ending: str) -> None:
    path = tmp_path / f"one@two of.{ending}"
    write(path, frames)
    found = read_dataset(Dataset(path=str(path), index="::-2"))
    assert len(found) == 6
    for frame, atoms in zip(found, frames[::-2], strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=DIGITS)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=DIGITS)
        np.testing.assert_allclose(frame.stress[[0, 1, 2], [0, 1, 2]], atoms.get_stress()[:3], atol=DIGITS)


def write_vasprun(path: Path, frames: list[Atoms]) -> None:
    """As VASP writes it, what ASE needs of it; stress is in kbar and pressure-like there."""
    atoms = frames[0]

    def rows(values: np.ndarray) -> str:
        return "\n".join(f"<v> {' '.join(f'{x:.12f}' for x in row)} </v>" for row in values)

    def structure(atoms: Atoms) -> str:
        basis, places = rows(atoms.cell.array), rows(atoms.get_scaled_positions())
        return (
            f'<structure><crystal><varray name="basis">{basis}</varray></crystal>'
            f'<varray name="positions">{places}</varray></structure>'
        )

    kinds = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in atoms.symbols)
    text = '<modeling><kpoints><varray name="kpointlist"><v> 0 0 0 </v></varray>'
    text += '<varray name="weights"><v> 1 </v></varray></kpoints>'
    text += f'<atominfo><array name="atoms"><set>{kinds}</set></array></atominfo>'
    text += structure(atoms).replace("<structure>", '<structure name="initialpos">')
    for frame in frames:
        stress = -frame.get_stress(voigt=False) / (0.1 * units.GPa)
        energy = f"{frame.get_potential_energy():.10f}"
        energies = "".join(f'<i name="{name}">{energy}</i>' for name in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))
        text += f"<calculation><scstep><energy>{energies}</energy></scstep>{structure(frame)}"
        text += f'<varray name="forces">{rows(frame.get_forces())}</varray>'
        text += f'<varray name="stress">{rows(stress)}</varray><energy>{energies}</energy></calculation>'
    path.write_text(text + "</modeling>")


def test_vasprun_files_of_a_pattern_are_one_data_set(tmp_path: Path, frames: list[Atoms]) -> None:
    for k in range(4):
        (tmp_path / f"run{k}").mkdir()
        write_vasprun(tmp_path / f"run{k}" / "vasprun.xml", frames[3 * k : 3 * k + 3])
    pattern = str(tmp_path / "run*" / "vasprun.xml")
    parts = load_data(parse_config({"data": {"train": pattern, "split": {"valid": 2, "test": 2}}}).data)
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [8, 2, 2]
    for frame in parts["train"]:
        file, _, position = frame.source.partition("#")
        atoms = frames[3 * int(Path(file).parent.name[3:]) + int(position)]
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=DIGITS)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=DIGITS)
    last = read_dataset(Dataset(path=pattern, index="-1"))
    assert [frame.energy for frame in last] == pytest.approx(
        [atoms.get_potential_energy() for atoms in frames[2::3]], abs=DIGITS
    )


def test_pattern_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no data file .*\*\.xyz"):
        read_dataset(Dataset(path=str(tmp_path / "*.xyz")))


def test_a_file_of_frames_is_all_that_it_takes(tmp_path: Path, data_file: Path, settings: Settings) -> None:
    model = [f"--set=model.{name}={value}" for name, value in settings()["model"].items()]
    more = [f"--set=output={tmp_path / 'run'}", "--set=training.epochs=2", "--set=threads=1", "--set=device=cpu"]
    result = CliRunner().invoke(app, ["run", str(data_file), *model, *more])
    assert result.exit_code == 0, result.output
    assert RunDirectory(tmp_path / "run").finished


def test_settings_of_a_file_follow_its_labels(tmp_path: Path, frames: list[Atoms]) -> None:
    """Energies alone, under a name of their own: no other term of the loss, and nothing to write by hand."""
    path = tmp_path / "my set, no 1.xyz"
    for atoms in frames:
        atoms.info = {"REF_energy": atoms.get_potential_energy()}
        atoms.calc = None
    write(path, frames)
    config = load_config(path, ["training.minutes=3"])
    assert config.data.train[0].keys.energy == "REF_energy"
    assert (config.loss.energy, config.loss.forces, config.loss.stress) == (10.0, 0.0, 0.0)
    assert (config.training.minutes, config.training.epochs) == (3.0, None)


def test_fit_needs_frames_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "_EPOCHS", (1, 3))
    dimers = [emt(Atoms("Cu2", positions=[[0, 0, 0], [2.0 + 0.05 * k, 0, 0]]), 0.0) for k in range(5)]
    potential = fit(dimers)
    assert potential.path == Path("runs/potential/model.asnq")


def test_cells_and_molecules_train_together(settings: Settings) -> None:
    """Crystals, slabs with and without a third vector, molecules, dimers that part, one-atom cells, single atoms."""
    slab = fcc111("Cu", (2, 2, 3), vacuum=5)
    flat = slab.copy()
    flat.cell[2] = 0
    flat.pbc = (True, True, False)
    molecules = [emt(molecule(name)) for name in ("H2O", "CO2", "NH3", "CH4", "C2H6", "N2")]
    dimers = [emt(Atoms("Cu2", positions=[[0, 0, 0], [distance, 0, 0]]), 0.0) for distance in (2.2, 3.0, 6.0)]
    cells = [emt(bulk("Cu", a=a)) for a in (3.5, 3.6, 3.7)]
    alone = [emt(Atoms(symbol)) for symbol in ("Cu", "H")]
    frames = [*label_with_emt(3, seed=7), emt(slab), emt(flat), *molecules, *dimers, *cells, *alone]
    potential = fit(frames, settings(data={"split": {"valid": 3, "test": 3}}))
    assert potential.path is not None
    summary = RunDirectory(potential.path.parent).read_json("summary.json")
    assert summary["frames"] == {"train": 11, "valid": 3, "test": 3}
    assert all(np.isfinite(summary["test"][name]) for name in ("loss", "energy_mae", "forces_mae"))


def test_frame_without_atoms_is_named(frames: list[Atoms], settings: Settings) -> None:
    with pytest.raises(ConfigError, match="frame 12 holds no atoms"):
        fit([*frames, Atoms()], settings())


@pytest.mark.parametrize("given", [label_with_emt(1, seed=0)[0], "frames.xyz", [None]])
def test_what_is_no_list_of_frames_is_refused(given: Any, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"must be a list of ase\.Atoms\. Got (Atom|str|NoneType) "):
        fit(given, settings())
