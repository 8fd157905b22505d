"""Where labelled frames come from: files and ASE databases, read frame by frame, and their division into parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.train.config import ConfigError, Data, Dataset, Split
from asenequip.train.data import SPLITS, Frame, take_labels
from asenequip.train.keys import check_keys, names_of

DATABASES = (".db", ".json", ".aselmdb")
"""Endings of ASE databases: SQLite, JSON, and LMDB through the package ase-db-backends."""
ISOLATED, UNUSED = "isolated", "unused"
"""What a frame of ``data.train`` may be besides a member of a part."""


@dataclass(frozen=True)
class Entry:
    """What must be known of a frame to divide the data.

    Attributes
    ----------
    source : str
    isolated : bool
    key : str or None
        Its value of ``data.split.key``.
    """

    source: str
    isolated: bool
    key: str | None


def entry_of(frame: Frame, split: Split) -> Entry:
    """The entry of a frame."""
    value = frame.atoms.info.get(split.key)
    return Entry(frame.source, frame.isolated, None if value is None else str(value))


def iterate_dataset(dataset: Dataset, number: int = 0) -> Iterator[Frame]:
    """Read a data set frame by frame and take the labels.

    Parameters
    ----------
    dataset : Dataset
        A file that ASE reads, an ASE database (``.db``, ``.aselmdb``), a folder of ``.aselmdb`` files, or a pattern of
        such names, as ``runs/*/OUTCAR``, in whose order they are read.
    number : int
        `Frame.dataset` of its frames.

    Raises
    ------
    ConfigError
        If it cannot be read, holds no frames, or none with a label that ``keys`` name, or a malformed label; the frame
        is named.
    """
    names: set[str] = set()
    only_atoms = True
    for path in _files(dataset.path):
        count = 0
        try:
            for atoms in _read(path, dataset.index):
                frame = take_labels(atoms, dataset, f"{path}#{count}", number)
                names |= names_of(atoms)
                only_atoms &= frame.isolated
                yield frame
                count += 1
        except (ConfigError, GeneratorExit):
            raise
        except Exception as error:
            raise ConfigError(f"{path} cannot be read by ASE after frame {count}: {error!r}") from error
        if not count:
            raise ConfigError(f"{path} holds no frames at index {dataset.index!r}.")
    check_keys(dataset, names, dataset.path, only_atoms)


def _files(name: str) -> list[Path]:
    """The file or folder of a name, or those that match it as a pattern, sorted.

    Raises
    ------
    ConfigError
        If there is none.
    """
    path = Path(name)
    found = [path] if path.exists() else sorted(Path(match) for match in glob(name, recursive=True))
    if not found:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ConfigError(f"There is no data file {path}{where}.\nCorrect data.train, data.valid or data.test.")
    return found


def read_dataset(dataset: Dataset, number: int = 0) -> list[Frame]:
    """All frames of a data set; see `iterate_dataset`."""
    return list(iterate_dataset(dataset, number))


def _read(path: Path, index: str) -> Iterator[Atoms]:
    from ase.io import iread
    from ase.io.formats import string2index

    if path.suffix not in DATABASES and not path.is_dir():
        yield from iread(str(path), index=index, do_not_split_by_at_sign=True)
        return
    chosen = string2index(index)
    if isinstance(chosen, str):
        raise ValueError(f"index must be a Python slice, not {index!r}")
    if isinstance(chosen, int):
        chosen = slice(chosen, chosen + 1 or None)
    files = sorted(path.glob("*.aselmdb")) if path.is_dir() else [path]
    databases = [_connect(file) for file in files]
    ends = np.cumsum([0, *(database.count() for database in databases)])
    wanted = range(int(ends[-1]))[chosen]
    for database, start, stop in zip(databases, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield from _rows(database, [k - start for k in wanted if start <= k < stop])


def _connect(path: Path) -> Any:
    from ase.db import connect

    if path.suffix == ".aselmdb":
        try:
            import ase_db_backends  # noqa: F401 (found by ASE through its entry point)
        except ImportError:
            raise ConfigError(
                f"{path} is an LMDB database, which needs ase-db-backends.\n"
                "Install it with: pip install 'asenequip[lmdb]'"
            ) from None
        return connect(str(path), readonly=True)
    return connect(str(path), serial=True)


def _rows(database: Any, positions: Sequence[int]) -> Iterator[Atoms]:
    """Rows of a database at ascending or descending positions, their key-value pairs and data in ``info``."""
    if not positions:
        return
    first, count = min(positions), max(positions) - min(positions) + 1
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    rows = database.select(limit=count, offset=first)
    if step < 0:
        rows = reversed(list(rows))
    for k, row in enumerate(rows):
        if k % abs(step) == 0:
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            atoms.info.update({key: value for key, value in row.data.items() if isinstance(key, str)})
            yield atoms


def divide(entries: Sequence[Entry], split: Split, need: Sequence[str]) -> dict[str, list[int]]:
    """Divide frames among training, validation and test.

    Parameters
    ----------
    entries : sequence of Entry
    split : Split
    need : sequence of str
        Which of "valid", "test" are to be taken from the frames.

    Returns
    -------
    dict
        {"train": ..., "valid": ..., "test": ...}: ascending positions in ``entries``.

    Raises
    ------
    ConfigError
        If a key is missing or the sizes asked for leave nothing to train on.
    """
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    if split.method == "key":
        for k, entry in enumerate(entries):
            if entry.key not in SPLITS:
                raise ConfigError(
                    f"atoms.info['{split.key}'] of {entry.source} must be train, valid or test. "
                    f"Got {entry.key!r} instead."
                )
            if entry.key == "train" or entry.key in need:
                parts[entry.key].append(k)
    else:
        _divide_by_size(entries, split, need, parts)
    return parts


def _divide_by_size(entries: Sequence[Entry], split: Split, need: Sequence[str], parts: dict[str, list[int]]) -> None:
    """Fill ``parts`` with whole groups: single frames, or frames with one value of a key."""
    groups: dict[object, list[int]] = {}
    for k, entry in enumerate(entries):
        if split.method == "group" and entry.key is None:
            raise ConfigError(f"{entry.source} has no atoms.info['{split.key}'], which data.split groups by.")
        groups.setdefault(entry.key if split.method == "group" else k, []).append(k)
    blocks = list(groups.values())
    if split.method != "end":
        order = np.random.default_rng(split.seed).permutation(len(blocks))
        blocks = [blocks[k] for k in order]
    wanted, end = _sizes(entries, split, need), len(blocks)
    for name, size in wanted.items():
        while len(parts[name]) < size and end > 1:
            end -= 1
            parts[name] += blocks[end]
        parts[name].sort()
    parts["train"] = sorted(k for block in blocks[:end] for k in block)


def _sizes(entries: Sequence[Entry], split: Split, need: Sequence[str]) -> dict[str, int]:
    """Frames to set apart for test and validation; refused where they are all there are."""
    total = len(entries)
    parts = {name: getattr(split, name) for name in ("test", "valid") if name in need}
    sizes = {name: round(part * total) if part < 1 else int(part) for name, part in parts.items()}
    if total <= sum(sizes.values()):
        asked = " and ".join(f"{size} {name}" for name, size in sizes.items() if size)
        where = entries[0].source.rpartition("#")[0] or "data.train"
        raise ConfigError(
            f"data.split asks for {asked} frames of the {total} of {where}, which leaves none to train on.\n"
            "Ask for fewer: numbers and fractions are of the frames of each data set."
        )
    return sizes


def assign(files: Iterable[Sequence[Entry]], data: Data) -> list[list[str]]:
    """What each frame of each file of ``data.train`` is for.

    Returns
    -------
    list of lists of str
        "train", "valid", "test", "isolated" (single atoms, which serve the energy shifts only) or "unused".
    """
    need = [name for name in ("valid", "test") if not getattr(data, name)]
    out, left = [], data.max_frames
    for entries in files:
        parts = [ISOLATED if entry.isolated else UNUSED for entry in entries]
        connected = [k for k, entry in enumerate(entries) if not entry.isolated]
        chosen = divide([entries[k] for k in connected], data.split, need) if connected else {}
        for name, positions in chosen.items():
            kept = positions if name != "train" or left is None else positions[:left]
            for k in kept:
                parts[connected[k]] = name
            if name == "train" and left is not None:
                left -= len(kept)
        out.append(parts)
    if not any("train" in parts for parts in out):
        raise ConfigError(
            "There are no frames to train on: those of data.train are isolated atoms or set apart by data.split.\n"
            "Add frames with neighbours to data.train, or divide them otherwise."
        )
    return out


def shared_zero(data: Data, dataset: Dataset) -> int:
    """Position in ``data.train`` of the data set whose zero of energy a validation or test set shares.

    The one with the same path, else the one with the same ``name``, else the first.
    """
    for k, other in enumerate(data.train):
        if Path(other.path) == Path(dataset.path):
            return k
    names = [other.name for other in data.train]
    return names.index(dataset.name) if dataset.name is not None and dataset.name in names else 0


def load_data(data: Data, frames: Sequence[Atoms] | None = None) -> dict[str, list[Frame]]:
    """Read and divide everything that the settings name.

    Parameters
    ----------
    data : Data
    frames : sequence of ase.Atoms, optional
        In place of the files of ``data.train``.

    Returns
    -------
    dict of lists of Frame
        "train", "valid", "test" and "isolated": single atoms, which serve the energy shifts only.
    """
    if frames is None and not data.train:
        raise ConfigError("The settings name no data: set data.train to a file (any format ASE reads).")
    if frames is not None:
        frames = list(frames)
        strangers = [type(item).__name__ for item in frames if not isinstance(item, Atoms)]
        if strangers:
            raise ConfigError(
                f"The frames must be a list of ase.Atoms. Got {strangers[0]} in it instead.\n"
                "Read files with ase.io.read(..., index=':'), or name them in data.train."
            )
        dataset = data.train[0] if data.train else Dataset(path="frames")
        labelled = [take_labels(atoms, dataset, f"frame {k}") for k, atoms in enumerate(frames)]
        check_keys(dataset, set().union(*map(names_of, frames)), "the given list", all(f.isolated for f in labelled))
        sources = [labelled]
    else:
        sources = [read_dataset(dataset, k) for k, dataset in enumerate(data.train)]
    out: dict[str, list[Frame]] = {name: [] for name in (*SPLITS, ISOLATED)}
    parts = assign([[entry_of(frame, data.split) for frame in source] for source in sources], data)
    for source, names in zip(sources, parts, strict=True):
        for frame, name in zip(source, names, strict=True):
            if name != UNUSED:
                out[name].append(frame)
    for name in ("valid", "test"):
        for dataset in getattr(data, name):
            out[name] += read_dataset(dataset, shared_zero(data, dataset))
    return out
