"""What `convert` refuses before anything foreign is opened; needs no reference installed."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest

from asenequip.convert import ConversionError, convert
from asenequip.convert.run import type_symbols


class _Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.trace), "w")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    path.write_bytes(pickle.dumps(_Trap(tmp_path / "sprung"), protocol=2))
    return path


def test_pickles_stay_closed_without_permission(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="--trust-pickle"):
        convert(checkpoint, tmp_path / "model.asnq", trust_pickle=False)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["model.nequip.pt2", "model.nequip.pth"])
def test_compiled_models_are_refused_in_favour_of_their_package(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"compiled")
    with pytest.raises(ConversionError, match=r"\.nequip\.zip"):
        convert(tmp_path / name, tmp_path / "model.asnq", trust_pickle=True)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(ConversionError, match=r"checkpoint \(\.ckpt\) or package"):
        convert(tmp_path / "model.zip", tmp_path / "model.asnq", trust_pickle=True)


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
        convert(tmp_path / "absent.ckpt", tmp_path / "model.asnq", trust_pickle=True)


def test_existing_destination_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    destination = tmp_path / "model.asnq"
    destination.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        convert(checkpoint, destination, trust_pickle=True)
    assert destination.read_bytes() == b"mine"
    assert not (tmp_path / "sprung").exists()


def test_destination_has_the_right_ending(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"\.asnq"):
        convert(checkpoint, tmp_path / "model.pt", trust_pickle=True)


def test_absent_interpreter_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="nowhere/python"):
        convert(checkpoint, tmp_path / "model.asnq", trust_pickle=True, python="/nowhere/python")


@pytest.mark.skipif(importlib.util.find_spec("nequip") is not None, reason="nequip is installed here")
def test_interpreter_without_nequip_gets_the_remedy(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"asenequip\[convert\]"):
        convert(checkpoint, tmp_path / "model.asnq", trust_pickle=True, python=sys.executable)


def test_types_without_symbols_ask_for_a_mapping() -> None:
    with pytest.raises(ConversionError, match=r"symbols=\{'tetrahedral': "):
        type_symbols(["tetrahedral", "S"], {})


def test_types_are_mapped_to_symbols() -> None:
    assert type_symbols(["tetrahedral", "S"], {"tetrahedral": "P"}) == ["P", "S"]


def test_mapping_of_an_unknown_type_is_named() -> None:
    with pytest.raises(ConversionError, match="octahedral"):
        type_symbols(["P", "S"], {"octahedral": "Li"})


def test_two_types_of_one_element_are_refused() -> None:
    with pytest.raises(ConversionError, match="one element"):
        type_symbols(["P1", "P2"], {"P1": "P", "P2": "P"})
