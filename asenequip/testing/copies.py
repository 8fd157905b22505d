"""Checks of copies and company: threads, pickle, deepcopy, new processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from asenequip.testing.report import NotApplicable, require
from asenequip.testing.subject import Subject, require_identical


def shared_by_threads(subject: Subject) -> None:
    """Four threads that share the calculator, each with its own atoms, all get their own numbers."""
    frames = [subject.crystal(kind) for kind in ("orthorhombic", "skewed", "rotated")] + [subject.cluster()]
    expected = [subject.values(atoms) for atoms in frames]
    found: list[list[Any]] = [[] for _ in frames]
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for _ in range(8):
                subject_values = subject.values(frames[k])
                found[k].append(subject_values)
        except Exception as error:  # noqa: BLE001 - reported from the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(not errors, f"a thread failed: {errors[:1]}")
    for k, values in enumerate(found):
        for value in values:
            subject.same(value, expected[k], f"thread {k}")


def deepcopy_is_independent(subject: Subject) -> None:
    """A deep copy gives the same numbers and leaves the original's results alone."""
    first, second = subject.crystal(), subject.cluster()
    expected = subject.values(first), subject.values(second)
    kept = subject.attach(first)
    kept.get_potential_energy()
    twin = copy.deepcopy(subject.calc)
    require_identical(subject.values(second, twin), expected[1], "the copy")
    with subject.counting() as calls:
        kept.get_potential_energy()
    require(calls[0] == 0, "using the copy made the original forget its results")
    require_identical(subject.values(first), expected[0], "the original")


def pickle_comes_back(subject: Subject) -> None:
    """Pickling keeps the numbers, the parameters and the results."""
    atoms = subject.attach(subject.crystal())
    expected = subject.values(atoms)
    data = pickle.dumps(subject.calc)
    again = pickle.loads(data)  # made one line above
    require_identical(subject.values(atoms, again), expected, "the unpickled calculator")
    require(again.todict() == subject.calc.todict(), "the parameters differ")
    whole = pickle.loads(pickle.dumps(atoms))
    require_identical({"energy": whole.get_potential_energy()}, expected, "pickled with its atoms")


def _energy_elsewhere(job: tuple[Calculator, Atoms]) -> dict[str, Any]:
    calc, atoms = job
    atoms.calc = calc
    return {"energy": atoms.get_potential_energy(), "forces": np.array(atoms.get_forces())}


def works_in_a_new_process(subject: Subject) -> None:
    """A spawned process gets the calculator and gives the same numbers."""
    atoms = subject.crystal()
    expected = subject.values(atoms)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(_energy_elsewhere, (subject.calc, atoms)).result(timeout=300)
    subject.same(found, expected, "in the other process")


def works_with_joblib(subject: Subject) -> None:
    """Worker processes of joblib give the same numbers."""
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        raise NotApplicable("joblib is not installed") from error
    frames = [subject.crystal(), subject.cluster()]
    found = Parallel(n_jobs=2)(delayed(_energy_elsewhere)((subject.calc, atoms)) for atoms in frames)
    for atoms, values in zip(frames, found, strict=True):
        subject.same(values, subject.values(atoms), "in a worker")


CHECKS = (
    shared_by_threads,
    deepcopy_is_independent,
    pickle_comes_back,
    works_in_a_new_process,
    works_with_joblib,
)
