"""Labels in an ASE database: one row per structure and labeller, so that nothing is labelled twice or lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.files import locked

GRID = 1e-6
"""Angstrom: positions and cells are rounded to it before they are hashed."""
DONE, FAILED = "done", "failed"


class StoreLockedError(RuntimeError):
    """Another process is labelling into this database."""


def structure_key(atoms: Atoms, labeller: str = "") -> str:
    """Name of a structure (elements in order, positions, cell, periodicity) under a labeller.

    Structures that differ by less than half of `GRID` Angstrom have one name; charges and magnetic moments count,
    velocities and names do not.
    """
    parts = [
        np.asarray(atoms.numbers, np.int64),
        np.rint(atoms.positions / GRID).astype(np.int64),
        np.rint(atoms.cell.array / GRID).astype(np.int64),
        np.asarray(atoms.pbc, np.int64),
        np.rint(atoms.get_initial_charges() / GRID).astype(np.int64),
        np.rint(atoms.get_initial_magnetic_moments() / GRID).astype(np.int64),
    ]
    digest = hashlib.sha256(labeller.encode())
    for part in parts:
        digest.update(repr(part.shape).encode() + np.ascontiguousarray(part, np.int64).tobytes())
    return f"s{digest.hexdigest()[:32]}"


@dataclass(frozen=True)
class Outcome:
    """What came of labelling one structure.

    Attributes
    ----------
    results : dict
        "energy", "forces" and, where there is one, "stress"; empty for a failure.
    reason : str
        "" or a word: "crashed", "timeout", "unconverged", "error", "not finite", "too large".
    detail : str
        The error in words.
    seconds : float
    attempts : int
    """

    results: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    attempts: int = 1

    @property
    def good(self) -> bool:
        """Whether there is a label."""
        return not self.reason


@dataclass(frozen=True)
class Failure:
    """A structure without a label, and why: see `Outcome`."""

    atoms: Atoms
    reason: str
    detail: str
    attempts: int


class LabelStore:
    """Labels and failures in one SQLite file of ASE's; each row is written in one transaction.

    Parameters
    ----------
    path : path
        Ending in ``.db``; made when the first row is written. ``ase db path`` reads it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from ase.db import connect

        self.path = Path(path)
        if self.path.suffix != ".db":
            raise ValueError(f"A database of labels must end in '.db'. Got '{path}' instead.\nChoose another name.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite locks by itself; a lock file of ASE's would outlive a killed process and block the next one
        self._database = connect(str(self.path), type="db", use_lock_file=False)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the database for one labelling process; the system lets go when the process ends, however it ends.

        Raises
        ------
        StoreLockedError
        """
        refusal = StoreLockedError(
            f"Another process is labelling into '{self.path}'.\nWait for it, or take another database."
        )
        return locked(self.path.with_name(f".{self.path.name}.lock"), refusal)

    def status(self, key: str) -> str | None:
        """What is known of a structure: "done", "failed", or None if it was never labelled."""
        row = self._row(key)
        return None if row is None else str(row.status)

    def get(self, key: str) -> Atoms | None:
        """The labelled structure of a key, or None."""
        row = self._row(key)
        return None if row is None or row.status != DONE else _atoms(row)

    def add(self, key: str, atoms: Atoms, outcome: Outcome, labeller: str = "") -> None:
        """Write what came of labelling a structure; a failure may be replaced, a label never is."""
        old = self._row(key)
        if old is not None and old.status == DONE:
            return
        bare = atoms.copy()
        bare.set_constraint()
        if outcome.good:
            bare.calc = SinglePointCalculator(bare, **outcome.results)
        info = {k: v for k, v in atoms.info.items() if isinstance(v, (str, int, float, bool))}
        data = {"detail": outcome.detail, "labeller": labeller, "info": json.dumps(info)}
        pairs = {
            "structure": key,
            "status": DONE if outcome.good else FAILED,
            "attempts": outcome.attempts + (0 if old is None else int(old.attempts)),
            "seconds": float(outcome.seconds),
            **({"reason": outcome.reason} if outcome.reason else {}),
        }
        self._database.write(bare, key_value_pairs=pairs, data=data, **({} if old is None else {"id": old.id}))

    def frames(self) -> list[Atoms]:
        """All labelled structures, in the order written; ``info["structure"]`` is the key."""
        return [_atoms(row) for row in self._rows(DONE)]

    def failures(self) -> list[Failure]:
        """All structures whose labelling failed, with the reasons."""
        return [
            Failure(_atoms(row), str(row.reason), str(row.data.get("detail", "")), int(row.attempts))
            for row in self._rows(FAILED)
        ]

    def counts(self) -> dict[str, int]:
        """Rows by status, and failures by reason as "failed: reason"."""
        failed = self._rows(FAILED)
        found = {DONE: len(self._rows(DONE)), FAILED: len(failed)}
        for row in failed:
            found[f"{FAILED}: {row.reason}"] = found.get(f"{FAILED}: {row.reason}", 0) + 1
        return found

    def _row(self, key: str) -> Any:
        rows = list(self._database.select(structure=key)) if self.path.exists() else []
        return rows[0] if rows else None

    def _rows(self, status: str) -> list[Any]:
        return list(self._database.select(status=status, sort="id")) if self.path.exists() else []


def _atoms(row: Any) -> Atoms:
    atoms = row.toatoms()
    atoms.info = {**json.loads(row.data.get("info", "{}")), "structure": row.structure}
    return atoms
