"""Checkpoints: exact, atomic, hashed; a damaged one is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asenequip.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    pack_optimizer,
    save_checkpoint,
    unpack_optimizer,
)


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"w": torch.full((3,), value, dtype=torch.float64)}, {"loss": value / 3, "rows": [{"a": 0.1}]})


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "last", 7, checkpoint(0.1))
    found, damaged = load_checkpoint(tmp_path, "last")
    assert found is not None
    assert found.values == {"loss": 0.1 / 3, "rows": [{"a": 0.1}]}
    assert torch.equal(found.tensors["w"], checkpoint(0.1).tensors["w"])
    assert damaged == []


def test_the_last_two_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, "last", step, checkpoint(step))
    save_checkpoint(tmp_path, "best", 1, checkpoint(0.5))
    assert [path.name[:14] for path in list_checkpoints(tmp_path, "last")] == ["last-000000004", "last-000000003"]
    assert len(list_checkpoints(tmp_path, "best")) == 1


@pytest.mark.parametrize("damage", ["flip", "tear", "empty"])
def test_damaged_file_is_detected_and_the_previous_used(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, "last", 1, checkpoint(1.0))
    newest = save_checkpoint(tmp_path, "last", 2, checkpoint(2.0))
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    newest.write_bytes({"flip": bytes(content), "tear": bytes(content[:-5]), "empty": b""}[damage])
    found, damaged = load_checkpoint(tmp_path, "last")
    assert found is not None
    assert found.tensors["w"][0] == 1.0
    assert damaged == [newest]


def test_nothing_there(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "last") == (None, [])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_optimizer_goes_on_bit_for_bit(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            ((weight - 1.0) ** 4).sum().backward()
            optimizer.step()

    whole, half = (torch.nn.Parameter(torch.linspace(0, 3, 5)) for _ in range(2))
    steps(whole, kind([whole], lr=0.1), 6)
    first = kind([half], lr=0.1)
    steps(half, first, 3)
    save_checkpoint(tmp_path, "last", 3, pack_optimizer(first))
    packed, _ = load_checkpoint(tmp_path, "last")
    second = kind([half], lr=0.1)
    assert packed is not None
    unpack_optimizer(second, packed)
    steps(half, second, 3)
    assert torch.equal(whole, half)
