"""Under which names frames carry their labels, and what is said where the settings name others."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from ase import Atoms

from asenequip.train.config import ConfigError, Dataset, Keys

USUAL = {
    "energy": ("energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy", "Energy", "free_energy"),
    "forces": ("forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces", "force", "Forces"),
    "stress": ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress"),
    "virial": ("virial", "REF_virial", "ref_virial", "dft_virial", "virials"),
}
"""Names that labels have in files of the field, the most trusted first."""
_MOST_NAMED = 12
_GEOMETRY = {"numbers", "positions"}


def names_of(atoms: Atoms) -> set[str]:
    """Names of everything that a frame carries: results of its calculator, ``info``, ``arrays``."""
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    return {str(name) for name in (*results, *atoms.info, *atoms.arrays)} - _GEOMETRY


def find_keys(names: Collection[str]) -> dict[str, str | None]:
    """Which of the names are the labels' by custom: for each of energy, forces, stress, virial; None where none is."""
    return {kind: next((name for name in usual if name in names), None) for kind, usual in USUAL.items()}


def check_keys(dataset: Dataset, names: Collection[str], where: str, only_atoms: bool = False) -> None:
    """Refuse settings that name labels which no frame has, or that pass over labels under their usual names.

    Parameters
    ----------
    dataset : Dataset
    names : collection of str
        What the frames carry, see `names_of`.
    where : str
        The file, for messages.
    only_atoms : bool
        All frames are isolated atoms, of which energies are all that counts.

    Raises
    ------
    ConfigError
    """
    usual, found = Keys(), find_keys(names)
    wanted = {kind: name for kind, name in dataset.keys if name is not None}
    if wanted.get("stress") in names or wanted.get("virial") in names:  # one of the two is enough
        wanted = {kind: name for kind, name in wanted.items() if kind not in ("stress", "virial")}
    for kind, name in wanted.items():
        if name in names or (only_atoms and kind != "energy"):
            continue
        if name != getattr(usual, kind):
            close = difflib.get_close_matches(name, names, n=1) or [found[kind]]
            hint = f"Did you mean '{close[0]}'? " if close[0] else ""
            raise ConfigError(
                f"No frame of {where} has the label '{name}' that keys.{kind} names.\n{hint}The frames have: "
                f"{_listed(names)}."
            )
        there = "virial" if kind == "stress" and found["stress"] is None else kind
        if found[there] is not None:
            raise ConfigError(
                f"The frames of {where} have '{found[there]}' but no '{name}'.\n"
                f"Set keys: {{{there}: {found[there]}}} for them in data, or {{{kind}: null}} to do without."
            )


def _listed(names: Collection[str]) -> str:
    listed = sorted(names)[:_MOST_NAMED]
    return ", ".join(listed) + (" ..." if len(names) > _MOST_NAMED else "") if listed else "no labels at all"
