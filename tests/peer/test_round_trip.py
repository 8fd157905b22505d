"""Checkpoints and packages made by the reference's own commands, through `convert` and back into a calculator."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from peer_cases import BESSEL, LIMITS, LJ, SPLINE, ZBL, Case, base, build_reference
from peer_training import frames, package, train

from asenequip.artifact import load_artifact
from asenequip.calculator import AllegroCalculator
from asenequip.convert import ConversionError, convert

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

SINGLE = {"energy_per_atom": 2e-5, "forces": 1e-4, "stress": 1e-5}
"""Two float32 evaluations of one model, whose roundings of 6e-8 meet edge energies of up to 10 eV (the repulsion of
near pairs), forty to an atom: eV per atom, eV/Angstrom, eV/Angstrom^3."""

SIZE = {"r_max": 4.5, "l_max": 2, "num_layers": 2, "num_scalar_features": 16, "num_tensor_features": 8}
MODELS = {
    "float64": {
        **SIZE,
        "model_dtype": "float64",
        "radial_chemical_embed": {"_target_": SPLINE},
        "tp_path_channel_coupling": False,
        "weight_individual_irreps": False,
        "per_type_energy_shifts_trainable": True,
    },
    "float32": {
        **SIZE,
        "model_dtype": "float32",
        "radial_chemical_embed": {"_target_": BESSEL, "bessel_trainable": True},
        "per_edge_type_cutoff": {"Cu": 4.0, "Au": {"Cu": 4.2}},
        "pair_potential": {**ZBL, "chemical_species": ["Cu", "Au"]},
        "per_type_energy_scales_trainable": True,
    },
}


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A trained checkpoint and its package for each precision."""
    pytest.importorskip("allegro", reason="nequip-allegro is not installed here: pip install 'asenequip[convert]'")
    out = {}
    for name, model in MODELS.items():
        checkpoint = train(tmp_path_factory.mktemp(name), frames(12, seed=0), **model)
        out[name, "checkpoint"] = checkpoint
        out[name, "package"] = package(checkpoint)
    return out


def reference_calculator(path: Path) -> Calculator:
    from nequip.integrations.ase import NequIPCalculator

    return NequIPCalculator._from_saved_model(str(path), chemical_species_to_atom_type_map=True)


def largest_deviations(one: Calculator, two: Calculator, structures: list[Atoms]) -> dict[str, float]:
    worst = dict.fromkeys(LIMITS, 0.0)
    for atoms in structures:
        results = []
        for calc in (one, two):
            mine = atoms.copy()
            mine.calc = calc
            results.append((mine.get_potential_energy() / len(mine), mine.get_forces(), mine.get_stress()))
        for quantity, a, b in zip(LIMITS, *results, strict=True):
            worst[quantity] = max(worst[quantity], float(np.abs(np.asarray(a) - b).max()))
    return worst


@pytest.mark.parametrize("kind", ["checkpoint", "package"])
@pytest.mark.parametrize("dtype", list(MODELS))
def test_converted_potential_gives_the_sources_results(
    sources: dict[tuple[str, str], Path], dtype: str, kind: str, tmp_path: Path
) -> None:
    source = sources[dtype, kind]
    converted = convert(source, tmp_path / "model.asnq", trust_pickle=True)
    off = largest_deviations(
        AllegroCalculator(converted, device="cpu", dtype=dtype), reference_calculator(source), frames(3, seed=7)
    )
    limits = LIMITS if dtype == "float64" else SINGLE
    assert all(off[quantity] <= limit for quantity, limit in limits.items()), off


def test_artifact_names_its_source_and_precision(sources: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    source = sources["float32", "package"]
    potential = load_artifact(convert(source, tmp_path / "model.asnq", trust_pickle=True))
    assert potential.dtype == "float32"
    assert potential.provenance["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert potential.provenance["versions"]["nequip-allegro"].startswith("0.8")


def test_rebuilt_model_that_differs_is_not_written(
    sources: dict[tuple[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asenequip.convert import run
    from asenequip.convert.source import Source, read_source

    def tampered(path: Path, python: str | None = None) -> Source:
        source = read_source(path, python)
        source.weights["allegro.tps.0.weights"] *= 1.0 + 1e-7
        return source

    monkeypatch.setattr(run, "read_source", tampered)
    with pytest.raises(ConversionError, match="does not reproduce the source"):
        convert(sources["float64", "checkpoint"], tmp_path / "model.asnq", trust_pickle=True)
    assert not list(tmp_path.iterdir())


class _Tattletale:
    """A pickle that writes the number of the process which opens it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        code = f"__import__('pathlib').Path({str(self.trace)!r}).write_text(str(__import__('os').getpid()))"
        return eval, (code,)


def test_pickles_are_opened_in_another_process(tmp_path: Path) -> None:
    pytest.importorskip("allegro", reason="nequip-allegro is not installed here: pip install 'asenequip[convert]'")
    trace, source = tmp_path / "trace", tmp_path / "odd.ckpt"
    source.write_bytes(pickle.dumps(_Tattletale(trace), protocol=2))
    with pytest.raises(ConversionError, match="could not open"):
        convert(source, tmp_path / "model.asnq", trust_pickle=True)
    assert trace.is_file()
    assert int(trace.read_text()) != os.getpid()


@pytest.fixture
def double() -> Iterator[None]:
    """The reference's process-wide state for the length of a test."""
    pytest.importorskip("allegro", reason="nequip-allegro is not installed here: pip install 'asenequip[convert]'")
    import torch
    from nequip.utils.global_state import set_global_state

    before = torch.get_default_dtype()
    set_global_state()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double")
def test_foreign_modules_are_named() -> None:
    from nequip.model import NequIPGNNModel

    from asenequip.convert.extract.describe import UnsupportedError
    from asenequip.convert.extract.main import extract

    names = {"type_names": ["Cu"], "r_max": 4.0, "seed": 0, "model_dtype": "float64"}
    model = NequIPGNNModel(**names, l_max=1, num_layers=1, num_features=4, avg_num_neighbors=10.0)
    with pytest.raises(UnsupportedError, match="ConvNetLayer"):
        extract(model)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"radial_chemical_embed": {"_target_": BESSEL, "polynomial_cutoff_p": 5.5}}, "envelope exponent"),
        ({"pair_potential": {**ZBL, "units": "real"}}, "units: metal"),
    ],
)
def test_options_without_a_counterpart_are_named(options: dict[str, object], named: str) -> None:
    from asenequip.convert.extract.describe import UnsupportedError
    from asenequip.convert.extract.main import extract

    with pytest.raises(UnsupportedError, match=named):
        extract(build_reference(Case("odd", base(**options))))


@pytest.mark.usefixtures("double")
def test_source_that_cannot_evaluate_itself_is_refused() -> None:
    from allegro.model import AllegroModel

    from asenequip.convert.extract.describe import UnsupportedError
    from asenequip.convert.extract.main import extract

    model = AllegroModel(seed=0, model_dtype="float64", **base(pair_potential=LJ))
    with pytest.raises(UnsupportedError, match="Its own code fails"):
        extract(model)


@pytest.mark.usefixtures("double")
def test_named_types_become_their_elements() -> None:
    from asenequip.convert.extract.main import extract
    from asenequip.convert.run import build, compare, frame_atoms

    sites = {
        "type_names": ["site", "S"],
        "per_type_energy_scales": 1.2,
        "per_type_energy_shifts": {"site": 1.0, "S": 2.0},
    }
    description, weights = extract(build_reference(Case("named", base(**sites, avg_num_neighbors=12.0))))
    model = build(description, weights, {"site": "P"})
    assert model.spec.type_names == ("P", "S")
    assert compare(model, frame_atoms(description, model.spec.type_names), description)["forces"] <= LIMITS["forces"]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("options", [{}, {"l_max": 3, "num_layers": 3, "forward_normalize": False}])
def test_single_precision_source_is_taken_to_its_exact_constants(options: dict[str, object]) -> None:
    from asenequip.convert.extract.main import extract
    from asenequip.convert.run import build, compare, frame_atoms

    description, weights = extract(build_reference(Case("single", base(**options), dtype="float32")))
    model = build(description, weights)
    off = compare(model, frame_atoms(description, model.spec.type_names), description)
    assert description["dtype"] == "float32"
    assert all(off[quantity] <= limit for quantity, limit in LIMITS.items()), off
