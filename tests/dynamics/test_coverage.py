"""What training frames covered, and the guard that tells where dynamics leave it."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from small_systems import small_atoms, small_model

from asenequip import AllegroCalculator
from asenequip.artifact import save_artifact
from asenequip.coverage import Coverage, CoverageGuard, CoverageWarning
from asenequip.graph import Graph, graph_of
from asenequip.md import Guards, Unstable, run_md

NAMES, CUTOFF = ("Cu", "O"), 3.4


def graph(atoms: Atoms) -> Graph:
    return graph_of(atoms, NAMES, np.full((2, 2), CUTOFF))


def pair(distance: float, symbols: str = "CuO") -> Atoms:
    return Atoms(symbols, positions=[[0, 0, 0], [0, 0, distance]])


def test_extremes_are_those_of_ases_neighbour_list():
    frames = [small_atoms(k).repeat((2, 1, 1)) for k in range(3)]
    found = Coverage.of(map(graph, frames), NAMES)
    for a, first in enumerate(NAMES):
        counts = []
        for atoms in frames:
            i = neighbor_list("i", atoms, CUTOFF)
            counts += np.bincount(i, minlength=len(atoms))[atoms.symbols == first].tolist()
        assert found.most[a] == max(counts)
        for b, second in enumerate(NAMES):
            lengths = [neighbor_list("d", atoms, {(first, second): CUTOFF}) for atoms in frames]
            assert found.shortest[a, b] == pytest.approx(np.concatenate(lengths).min(), abs=1e-12)


def test_the_record_is_json_and_comes_back():
    coverage = Coverage.of([graph(pair(2.0))], NAMES)
    back = Coverage.from_record(json.loads(json.dumps(coverage.to_record())))
    np.testing.assert_array_equal(back.shortest, [[np.inf, 2.0], [2.0, np.inf]])
    np.testing.assert_array_equal(back.most, coverage.most)


def test_breaches_name_the_worst_atoms_and_pass_the_rest():
    coverage = Coverage.of([graph(pair(2.0)), graph(pair(2.5, "CuCu"))], NAMES)
    assert coverage.breaches(graph(pair(1.97))) == {}  # within the margin of two per cent
    near = pair(1.9) + Atoms("Cu", positions=[[0, 0, 3.5]])
    found = coverage.breaches(graph(near))
    assert found["O-Cu distance"] == "atoms 1 and 2 (O, Cu) are 1.60 A apart; the shortest in training is 2.00 A"
    assert "1 (O) has 2 neighbours; the most in training are 1" in found["O neighbours"]
    assert "never met in training" in coverage.breaches(graph(pair(3.0, "O2")))["O-O distance"]


@pytest.fixture
def trained(tmp_path) -> AllegroCalculator:
    """A potential whose training saw copper at rest only."""
    crystal = bulk("Cu", cubic=True) * (2, 2, 2)
    coverage = Coverage.of([graph(crystal)], NAMES).to_record()
    path = save_artifact(tmp_path / "m.asnq", small_model(), provenance={"training": {"coverage": coverage}})
    return AllegroCalculator(path, device="cpu")


def test_dynamics_warn_once_of_each_kind(trained):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run_md(atoms, trained, steps=4, interval=1, timestep=0.1)
    told = [str(warning.message) for warning in seen if warning.category is CoverageWarning]
    (near,) = [text for text in told if "apart" in text]
    assert re.match(r"Step 0: atoms \d+ and \d+ \(Cu, Cu\) are .* apart; the shortest in training is 2\.55 A", near)
    assert len([text for text in told if "neighbours" in text]) == 1


def test_dynamics_stop_where_asked_to(trained):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=0)
    with pytest.raises(Unstable, match=r"step 0 .*the shortest in training is 2\.55 A"):
        run_md(atoms, trained, steps=4, guards=Guards(coverage="stop"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_md(atoms, trained, steps=1, timestep=0.1, guards=Guards(coverage="off"))


def test_a_potential_that_tells_nothing_is_not_guarded(small_artifact):
    calculator = AllegroCalculator(small_artifact, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_md(small_atoms(), calculator, steps=1, timestep=0.01, guards=Guards(max_force=1e4))
    with pytest.raises(ValueError, match="does not tell what its training covered"):
        CoverageGuard(calculator)


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'coverage' parameter of Guards must be"):
        Guards(coverage="shout")
