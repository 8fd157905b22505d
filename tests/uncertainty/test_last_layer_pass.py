"""The last layer comes out of the pass that gives energies and forces, eager and fused, and energies follow from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_systems import small_atoms, small_model

from asenequip.artifact import save_artifact
from asenequip.evaluate import Evaluator
from asenequip.kernels import native

SPECS = {"one hidden layer": {}, "three hidden layers": {"readout_depth": 3}, "no hidden layer": {"readout_depth": 0}}
FORMS = {"eager": (False, 1e-12), "fused": (True, 2e-8)}
"""Compiled or not, and how far the energies (eV) may be off: rounding of float64 sums; the radial tables."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SPECS)
def test_energies_are_linear_in_the_last_layer(name, form, tmp_path):
    compiled, tolerance = FORMS[form]
    if compiled and (not native.compiler() or name == "no hidden layer"):
        pytest.skip("no C++ compiler on this machine" if not native.compiler() else "this architecture is not fused")
    model = small_model(**SPECS[name])
    evaluator = Evaluator(save_artifact(tmp_path / "m.asnq", model), dtype="float64", device="cpu", compiled=compiled)
    atoms = small_atoms()
    plain, found = evaluator.evaluate([atoms])[0], evaluator.evaluate([atoms], last_layer=True)[0]
    assert "last_layer" not in plain
    np.testing.assert_array_equal(plain["forces"], found["forces"])
    types = torch.tensor([model.spec.type_names.index(s) for s in atoms.symbols])
    weights = (model.readout.weights[-1] * model.readout.scales[-1]).detach().numpy()[:, 0]
    factor = (model.scales * model.inverse_norm / 2**0.5)[types].detach().numpy()
    energies = factor * (found["last_layer"] @ weights) + model.shifts[types].detach().numpy()
    np.testing.assert_allclose(energies, found["energies"], rtol=0, atol=tolerance)


def test_batches_give_each_structure_its_own_rows(small_artifact):
    evaluator = Evaluator(small_artifact, dtype="float64", device="cpu", compiled=False)
    frames = [small_atoms(k) for k in range(3)]
    together = evaluator.evaluate(frames, last_layer=True)
    for atoms, found in zip(frames, together, strict=True):
        alone = evaluator.evaluate([atoms], last_layer=True)[0]
        np.testing.assert_allclose(found["last_layer"], alone["last_layer"], rtol=1e-12, atol=1e-13)
