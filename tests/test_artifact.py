"""``model.asnq``: what is written comes back."""

from __future__ import annotations

import copy
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_systems import small_atoms, small_model

from asenequip.artifact import ArtifactError, golden_atoms, load_artifact, save_artifact
from asenequip.files import write_new
from asenequip.graph import graph_of
from asenequip.model.derivatives import evaluate_derivatives
from asenequip.model.spec import PairSpec


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"radial": "spline"},
        {"pair": PairSpec("lj", trainable=("sigma",))},
        {"pair_cutoffs": ((3.4, 2.0), (3.0, 3))},
    ],
)
def test_a_potential_comes_back_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    model = small_model(seed=5, **options)
    save_artifact(tmp_path / "a.asnq", model, golden=small_atoms(), provenance={"made by": "a test"})
    potential = load_artifact(tmp_path / "a.asnq")
    assert potential.spec == model.spec
    assert potential.provenance == {"made by": "a test"}
    assert potential.dtype == "float64"
    for name, tensor in model.state_dict().items():
        assert potential.model.state_dict()[name].equal(tensor), name
    graph = graph_of(small_atoms(3), model.spec.type_names, np.asarray(model.spec.cutoff_table()))
    assert evaluate_derivatives(potential.model, graph).forces.equal(evaluate_derivatives(model, graph).forces)


def test_the_hash_is_that_of_the_file(small_artifact: Path) -> None:
    assert load_artifact(small_artifact).sha256 == hashlib.sha256(small_artifact.read_bytes()).hexdigest()


def test_the_same_potential_gives_the_same_file(tmp_path: Path) -> None:
    first, second = (save_artifact(tmp_path / n, small_model()) for n in ("a.asnq", "b.asnq"))
    assert first.read_bytes() == second.read_bytes()


def test_a_float32_network_is_stored_and_checked(tmp_path: Path) -> None:
    model = small_model().to(torch.float32)
    potential = load_artifact(save_artifact(tmp_path / "a.asnq", model))
    assert potential.dtype == "float32"
    assert potential.model.dtype == torch.float32


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = save_artifact(tmp_path / "a.asnq", small_model())
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="not overwritten"):
        save_artifact(path, small_model(seed=9))
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_new(path, b"other")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.asnq"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.asnq"):
        save_artifact(tmp_path / "a.pt", small_model())


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.readout.weights[0][0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        save_artifact(tmp_path / "a.asnq", model)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_too_large_to_replay_gives_way_to_the_default(tmp_path: Path) -> None:
    path = save_artifact(tmp_path / "a.asnq", small_model(), golden=small_atoms() * (10, 10, 10))
    assert len(golden_atoms(path)) < 100
    load_artifact(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.asnq"):
        load_artifact(tmp_path / "nowhere.asnq")


def test_a_run_directory_is_not_its_potential(small_artifact: Path, tmp_path: Path) -> None:
    shutil.copy(small_artifact, tmp_path / "model.asnq")
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*model\.asnq'"):
        load_artifact(tmp_path)


def test_a_checkpoint_of_torch_is_told_how_to_become_a_potential(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(3)}}, tmp_path / "best.ckpt")
    with pytest.raises(ArtifactError, match=r"file of PyTorch's(.|\n)*asenequip convert .*best\.ckpt"):
        load_artifact(tmp_path / "best.ckpt")


def test_a_potential_is_not_changed_by_casting_it(small_artifact: Path) -> None:
    potential = load_artifact(small_artifact)
    before = copy.deepcopy(potential.model.state_dict())
    cast = potential.cast("float32", "cpu")
    assert cast.dtype == torch.float32
    assert all(potential.model.state_dict()[k].equal(v) for k, v in before.items())
