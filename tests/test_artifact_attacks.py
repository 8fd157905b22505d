"""``model.asnq``: a corpus of damaged and hostile files is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors

from asenequip.artifact import ArtifactError, golden_atoms, load_artifact

Entries = dict[str, bytes]
NAMES = ("model.json", "weights.safetensors", "golden.json")


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def reseal(entries: Entries) -> bytes:
    """Pack with correct hashes: what an attacker who knows the format would do."""
    header = json.loads(entries["model.json"])
    for name in ("weights.safetensors", "golden.json"):
        header["sha256"][name] = hashlib.sha256(entries[name]).hexdigest()
    return pack({**entries, "model.json": json.dumps(header).encode()})


def with_header(entries: Entries, **changes: Any) -> bytes:
    header = json.loads(entries["model.json"])
    return pack({**entries, "model.json": json.dumps({**header, **changes}).encode()})


def with_spec(**changes: Any) -> Callable[[Entries], bytes]:
    def attack(entries: Entries) -> bytes:
        return with_header(entries, spec={**json.loads(entries["model.json"])["spec"], **changes})

    return attack


def with_golden(**changes: Any) -> Callable[[Entries], bytes]:
    def attack(entries: Entries) -> bytes:
        golden = {**json.loads(entries["golden.json"]), **changes}
        return reseal({**entries, "golden.json": json.dumps(golden).encode()})

    return attack


def with_golden_text(old: bytes, new: bytes) -> Callable[[Entries], bytes]:
    return lambda e: reseal({**e, "golden.json": e["golden.json"].replace(old, new, 1)})


def with_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Entries], bytes]:
    def attack(entries: Entries) -> bytes:
        from safetensors.torch import load

        state = load(entries["weights.safetensors"])
        state = change(state) or state
        return reseal({**entries, "weights.safetensors": save_tensors(state)})

    return attack


def renamed(entries: Entries, old: str, new: str) -> bytes:
    return pack({new if k == old else k: v for k, v in entries.items()})


def duplicated(entries: Entries) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [*entries.items(), ("modelXjson", b"{}")]:
            archive.writestr(name, data)
    return buffer.getvalue().replace(b"modelXjson", b"model.json")


def flagged(entries: Entries) -> bytes:
    """The encryption bit set in every local and central header."""
    data = bytearray(pack(entries))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def claimed_size(entries: Entries, size: int) -> bytes:
    """The central directory claims another size of the weights."""
    data = bytearray(pack(entries))
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"weights.safetensors"))
    data[at + 20 : at + 28] = struct.pack("<II", size, size)
    return bytes(data)


def safetensors_header(entries: Entries, text: bytes, length: int | None = None) -> bytes:
    data = struct.pack("<Q", len(text) if length is None else length) + text
    return reseal({**entries, "weights.safetensors": data})


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["readout.weights.0"][0, 0] = value

    return change


def set_item(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: state.__setitem__(name, tensor)


HUGE = 10**400
ATTACKS: dict[str, Callable[[Entries], bytes]] = {
    "empty": lambda e: b"",
    "text": lambda e: b"not a potential at all",
    "pickle": lambda e: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "a zip without entries": lambda e: pack({}),
    **{f"without {name}": (lambda e, n=name: pack({k: v for k, v in e.items() if k != n})) for name in NAMES},
    **{f"truncated at {p} %": (lambda e, p=p: pack(e)[: len(pack(e)) * p // 100]) for p in (1, 10, 50, 90, 99)},
    "deflated": lambda e: pack(e, zipfile.ZIP_DEFLATED),
    "bzip2": lambda e: pack(e, zipfile.ZIP_BZIP2),
    "lzma": lambda e: pack(e, zipfile.ZIP_LZMA),
    "zip bomb": lambda e: pack({**e, "golden.json": b" " * (100 << 20)}, zipfile.ZIP_DEFLATED),
    "encrypted": flagged,
    "one more entry": lambda e: pack({**e, "extra.bin": b"x"}),
    "many entries": lambda e: pack({**e, **{f"part{k}": b"" for k in range(2000)}}),
    "path traversal": lambda e: pack({**e, "../../evil.json": b"{}"}),
    "traversal in place of an entry": lambda e: renamed(e, "golden.json", "../golden.json"),
    "absolute name": lambda e: renamed(e, "golden.json", "/golden.json"),
    "folder": lambda e: pack({**e, "golden.json/": b""}),
    "backslash name": lambda e: renamed(e, "golden.json", "..\\golden.json"),
    "duplicate entry": duplicated,
    "claims 4 GB": lambda e: claimed_size(e, 0xFFFFFF00),
    "claims 2 GB": lambda e: claimed_size(e, 0x7FFFFFFF),
    "claims nothing": lambda e: claimed_size(e, 0),
    "header is a list": lambda e: pack({**e, "model.json": b"[]"}),
    "header is no JSON": lambda e: pack({**e, "model.json": b"{'a': 1}"}),
    "header is no text": lambda e: pack({**e, "model.json": b"\xff\xfe\x00"}),
    "deep JSON": lambda e: pack({**e, "model.json": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"}),
    "deep golden": lambda e: reseal({**e, "golden.json": b"[" * 200_000}),
    "endless integer": lambda e: pack({**e, "model.json": b'{"format_version": ' + b"9" * 100_000 + b"}"}),
    "NaN in the header": lambda e: pack({**e, "model.json": b'{"format": NaN}'}),
    "another format": lambda e: with_header(e, format="zip"),
    "newer version": lambda e: with_header(e, format_version=2),
    "far newer version": lambda e: with_header(e, format_version=10**30),
    "version zero": lambda e: with_header(e, format_version=0),
    "version of another type": lambda e: with_header(e, format_version="1"),
    "version true": lambda e: with_header(e, format_version=True),
    "no hashes": lambda e: with_header(e, sha256={}),
    "hashes of another type": lambda e: with_header(e, sha256=[1, 2]),
    "foreign dtype": lambda e: with_header(e, dtype="int8"),
    "dtype of another type": lambda e: with_header(e, dtype=["float64"]),
    "provenance of another type": lambda e: with_header(e, provenance=[]),
    "no spec": lambda e: with_header(e, spec=None),
    "spec is a list": lambda e: with_header(e, spec=[1]),
    "spec is text": lambda e: with_header(e, spec="cutoff"),
    "unknown hyperparameter": with_spec(color="blue"),
    "huge width": with_spec(latent_width=2**62),
    "wide beyond integers": with_spec(num_scalar_features=HUGE),
    "many bessels": with_spec(num_bessels=10**13),
    "many splines": with_spec(radial="spline", num_splines=2**61),
    "deep two-body network": with_spec(two_body_depth=10**9),
    "deep latent network": with_spec(latent_depth=10**9),
    "deep readout": with_spec(readout_depth=HUGE),
    "many layers": with_spec(num_layers=10**9),
    "steep envelope": with_spec(envelope_exponent=10**9),
    "negative cutoff": with_spec(cutoff=-1.0),
    "cutoff as large as the world": with_spec(cutoff=1e7),
    "cutoff beyond floats": with_spec(cutoff=HUGE),
    "cutoff is text": with_spec(cutoff="5"),
    "no types": with_spec(type_names=[]),
    "types are numbers": with_spec(type_names=[1, 2]),
    "types are lists": with_spec(type_names=[["Cu"], ["O"]]),
    "types are a number": with_spec(type_names=3),
    "neighbours beyond floats": with_spec(avg_num_neighbors=[HUGE, 1.0]),
    "neighbours are text": with_spec(avg_num_neighbors=["x", 1.0]),
    "pair is a number": with_spec(pair=3),
    "pair of unknown kind": with_spec(pair={"kind": "gravity"}),
    "pair with unknown parameter": with_spec(pair={"kind": "zbl", "x": 1}),
    "pair cutoffs are a number": with_spec(pair_cutoffs=4),
    "other cutoff": with_spec(cutoff=3.41),
    "other nonlinearity": with_spec(latent_nonlinearity="gelu"),
    "other neighbour count": with_spec(avg_num_neighbors=[11.0, 7.001]),
    "types exchanged": with_spec(type_names=["O", "Cu"]),
    "safetensors header endless": lambda e: safetensors_header(e, b"{}", 2**62),
    "safetensors header missing": lambda e: safetensors_header(e, b"", 0),
    "safetensors header no JSON": lambda e: safetensors_header(e, b"garbage!"),
    "safetensors out of range": lambda e: safetensors_header(
        e, b'{"scales":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}'
    ),
    "safetensors shape overflow": lambda e: safetensors_header(
        e, b'{"scales":{"dtype":"F64","shape":[9223372036854775807,4],"data_offsets":[0,0]}}'
    ),
    "weights empty": lambda e: reseal({**e, "weights.safetensors": b""}),
    "NaN weight": with_weights(poison(float("nan"))),
    "infinite weight": with_weights(poison(float("inf"))),
    "integer weight": with_weights(set_item("scales", torch.ones(2, dtype=torch.int64))),
    "half weight": with_weights(set_item("scales", torch.ones(2, dtype=torch.float16))),
    "wrong shape": with_weights(set_item("scales", torch.ones(3, dtype=torch.float64))),
    "transposed": with_weights(lambda s: s.__setitem__("readout.weights.0", s["readout.weights.0"].T.contiguous())),
    "missing weight": with_weights(lambda s: {k: v for k, v in s.items() if k != "scales"}),
    "surplus weight": with_weights(set_item("backdoor", torch.ones(1))),
    "one weight changed": with_weights(poison(0.5)),
    "no golden energy": with_golden(energy=None),
    "golden energy off": with_golden(energy=0.0),
    "golden energy a list": with_golden(energy=[1.0]),
    "golden energy text": with_golden(energy="x"),
    "golden forces off": with_golden(forces=[[0.0] * 3] * 8),
    "golden forces ragged": with_golden(forces=[[0.0] * 3, [0.0]]),
    "golden forces a number": with_golden(forces=0.0),
    "golden stress off": with_golden(stress=[[1.0] * 3] * 3),
    "golden without atoms": with_golden(numbers=[], positions=[], forces=[], energy=0.0),
    "golden of unknown elements": with_golden(numbers=[1] * 8),
    "golden numbers beyond integers": with_golden(numbers=[HUGE] * 8),
    "golden numbers negative": with_golden(numbers=[-1] * 8),
    "golden numbers deep": with_golden(numbers=[[[29]]] * 8),
    "golden positions coincide": with_golden(positions=[[0.0] * 3] * 8),
    "golden positions ragged": with_golden(positions=[[0.0]] * 8),
    "golden positions text": with_golden(positions="abc"),
    "golden positions infinite": with_golden_text(b'"positions": [\n  [\n   ', b'"positions": [\n  [\n   1e999'),
    "golden cell collapsed": with_golden(cell=[[1e-3, 0, 0], [0, 1e-3, 0], [0, 0, 1e-3]]),
    "golden cell flat": with_golden(cell=[[1e-6, 0, 0], [0, 5, 0], [0, 0, 5]]),
    "golden cell dependent": with_golden(cell=[[5, 0, 0], [5, 0, 0], [0, 0, 5]]),
    "golden cell gone": with_golden(cell=[[0, 0, 0]] * 3),
    "golden chain collapsed": with_golden(
        cell=[[1e-7, 0, 0], [0, 0, 0], [0, 0, 0]], pbc=[True, False, False]
    ),
    "golden pbc missing": with_golden(pbc=None),
    "golden too large": with_golden(numbers=[29] * 5000, positions=[[3.0 * k, 0, 0] for k in range(5000)]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str, small_artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "attack.asnq"
    path.write_bytes(ATTACKS[name](entries_of(small_artifact)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError) as caught:
        load_artifact(path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"refusing took {grown:.0f} MB"
    message = str(caught.value)
    assert "attack.asnq" in message
    assert len(message.splitlines()) >= 2, "no remedy"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["attack.asnq"]


@pytest.mark.parametrize("name", NAMES)
def test_no_flipped_bit_of_an_entry_goes_unseen(name: str, small_artifact: Path, tmp_path: Path) -> None:
    whole, entries = small_artifact.read_bytes(), entries_of(small_artifact)
    start = whole.index(entries[name])
    rng = np.random.default_rng(0)
    for byte in rng.integers(0, len(entries[name]), 40):
        damaged = bytearray(whole)
        damaged[start + byte] ^= 1 << int(rng.integers(8))
        path = tmp_path / "flipped.asnq"
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            load_artifact(path, check=False)


def test_a_flipped_bit_between_the_entries_is_refused_or_harmless(small_artifact: Path, tmp_path: Path) -> None:
    whole, entries = small_artifact.read_bytes(), entries_of(small_artifact)
    covered = np.zeros(len(whole), bool)
    for data in entries.values():
        covered[whole.index(data) : whole.index(data) + len(data)] = True
    expected = load_artifact(small_artifact, check=False).model.state_dict()
    path = tmp_path / "flipped.asnq"
    for byte in np.flatnonzero(~covered):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << (int(byte) % 8)
        path.write_bytes(damaged)
        try:
            found = load_artifact(path, check=False).model.state_dict()
        except ArtifactError:
            continue
        assert all(found[k].equal(v) for k, v in expected.items())


def test_the_seal_is_right_so_the_attacks_fail_for_their_own_reason(small_artifact: Path, tmp_path: Path) -> None:
    entries = entries_of(small_artifact)
    for k, data in enumerate((reseal(entries), with_golden()(entries), with_weights(lambda s: None)(entries))):
        path = tmp_path / f"{k}.asnq"
        path.write_bytes(data)
        load_artifact(path)


def test_a_sparse_file_beyond_the_limits_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.asnq"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(ArtifactError, match="over the limit"):
        load_artifact(path)


def test_golden_atoms_of_a_damaged_file_is_an_artifact_error(small_artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "attack.asnq"
    path.write_bytes(with_golden(positions="abc")(entries_of(small_artifact)))
    with pytest.raises(ArtifactError, match="golden frame"):
        golden_atoms(path)
