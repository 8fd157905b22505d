"""Phonons as files: phonopy's own, tables, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from asenequip.files import refuse_existing
from asenequip.properties.figures import band_figure, thermal_figure
from asenequip.properties.spectra import Bands
from asenequip.properties.tables import write_csv, write_json

if TYPE_CHECKING:
    from asenequip.properties.phonons import Phonons


def write(
    found: Phonons, folder: Path, *, mesh: int | Sequence[int], temperatures: ArrayLike, points: int
) -> list[Path]:
    """Write everything about phonons into a folder; no file may exist, and none is written before all are calculated.

    ``phonopy_params.yaml`` (cells, displacements, forces or force constants: ``phonopy-load`` reads it alone),
    ``FORCE_SETS`` where forces were used, ``FORCE_CONSTANTS``; ``bands.csv``, ``dos.csv``, ``thermal.csv``,
    ``phonons.json``; ``bands.png``, ``thermal.png``.

    Parameters
    ----------
    found : Phonons
    folder : Path
    mesh : int or (3,) ints
        Wave vectors along each axis, for the density of states and thermal properties.
    temperatures : (t,) floats
        K.
    points : int
        Wave vectors on each line between special points.

    Returns
    -------
    list of Path
    """
    params, constants, sets = (folder / name for name in ("phonopy_params.yaml", "FORCE_CONSTANTS", "FORCE_SETS"))
    tables = [folder / name for name in ("bands.csv", "dos.csv", "thermal.csv")]
    summary, *figures = (folder / name for name in ("phonons.json", "bands.png", "thermal.png"))
    refuse_existing(params, constants, sets, *tables, summary, *figures)
    lines, density = found.bands(points), found.density_of_states(mesh)
    thermal = found.thermal_properties(temperatures, mesh)
    paths = _write_phonopy(found, params, constants, sets)
    write_csv(tables[0], _band_columns(lines))
    write_csv(tables[1], {"frequency_THz": density.frequencies, "states_per_THz": density.density})
    columns = {
        "temperature_K": thermal.temperatures,
        "free_energy_eV": thermal.free_energy,
        "entropy_eV_per_K": thermal.entropy,
        "heat_capacity_eV_per_K": thermal.heat_capacity,
    }
    write_csv(tables[2], columns)
    write_json(summary, _summary(found, thermal.imaginary))
    band_figure(lines, density, figures[0])
    thermal_figure(thermal, figures[1])
    return [*paths, *tables, summary, *figures]


def _write_phonopy(found: Phonons, params: Path, constants: Path, sets: Path) -> list[Path]:
    from phonopy.file_IO import write_FORCE_CONSTANTS, write_FORCE_SETS

    phonopy = found.phonopy
    with_forces = found.method == "displacements"
    phonopy.save(params, settings={"force_constants": not with_forces})
    write_FORCE_CONSTANTS(phonopy.force_constants, filename=constants, p2s_map=phonopy.primitive.p2s_map)
    if not with_forces:
        return [params, constants]
    write_FORCE_SETS(phonopy.dataset, filename=sets)
    return [params, constants, sets]


def _band_columns(bands: Bands) -> dict[str, Any]:
    """Line by line: number of the line, distance, wave vector, and the frequency of each branch."""
    qpoints, frequencies = np.concatenate(bands.qpoints), np.concatenate(bands.frequencies)
    columns: dict[str, Any] = {
        "line": np.repeat([f"{start}-{end}" for start, end in bands.labels], [len(d) for d in bands.distances]),
        "distance_per_A": np.concatenate(bands.distances),
    }
    columns |= {name: qpoints[:, axis] for axis, name in enumerate(("q1", "q2", "q3"))}
    return columns | {f"frequency_{k + 1}_THz": frequencies[:, k] for k in range(frequencies.shape[1])}


def _summary(found: Phonons, imaginary: float) -> dict[str, Any]:
    phonopy = found.phonopy
    return {
        "method": found.method,
        "evaluations": found.evaluations,
        "supercell_matrix": np.asarray(phonopy.supercell_matrix),
        "supercell_atoms": len(phonopy.supercell),
        "primitive_atoms": len(phonopy.primitive),
        "space_group": str(phonopy.symmetry.dataset.international),
        "residual_force_eV_per_A": found.residual_force,
        "acoustic_sum_rule_eV_per_A2": {"calculated": found.drift, "enforced": found.enforced_drift},
        "gamma_frequencies_THz": found.frequencies([0.0, 0.0, 0.0])[0],
        "imaginary_modes": imaginary,
    }
