"""``asenequip-train preprocess``: from files to shards with neighbour lists, a frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from asenequip.train.config import Config, ConfigError
from asenequip.train.data import SPLITS, Frame, make_samples
from asenequip.train.shards import INDEX, data_record, encode, load_lmdb, record_key, write_header
from asenequip.train.sources import ISOLATED, UNUSED, assign, entry_of, iterate_dataset
from asenequip.train.table import FrameTable, row_of, stack_rows

PARTS = (*SPLITS, ISOLATED)
_PAGE = 4096
"""Bytes by which a record can grow in LMDB, at most about two of them."""


def preprocess(config: Config, output: str | Path, shard_megabytes: int = 256) -> str:
    """Write the frames that the settings name into a new folder of shards.

    The files are read twice: for their species and division, then for the records. Memory holds one frame, one row
    per frame of the index, and what LMDB has not written yet.

    Parameters
    ----------
    config : Config
    output : str or Path
        A folder that does not exist yet.
    shard_megabytes : int
        Size of a shard; training maps one of them at a time.

    Returns
    -------
    str
        What was written, and how to train on it.

    Raises
    ------
    ConfigError
        If the folder exists, the package lmdb is missing, or settings or data are wrong.
    """
    folder = Path(output)
    load_lmdb()
    if not config.data.train:
        raise ConfigError("The settings name no data: set data.train to a file (any format ASE reads).")
    if folder.exists():
        raise ConfigError(f"{folder} exists and is not overwritten.\nGive another folder with -o.")
    found, parts = _survey(config)
    species, cutoffs = _species_and_cutoffs(config, found)
    folder.mkdir(parents=True)
    writer = _ShardWriter(folder, shard_megabytes * 2**20)
    rows: list[tuple[object, ...]] = []
    places: list[tuple[int, int, int, int]] = []
    for file, position, frame, part in _frames(config, parts):
        (sample,) = make_samples([frame], species, cutoffs)
        shard = writer.add(len(rows), encode(frame, sample.graph))
        rows.append(row_of(sample, len(species)))
        places.append((file, position, shard, PARTS.index(part)))
    writer.close()
    _write_index(folder, stack_rows(rows, len(species)), np.array(places, dtype=np.int32))
    header = {"species": species, "cutoffs": cutoffs.tolist(), "parts": PARTS, "files": writer.files}
    write_header(folder, {**header, "data": data_record(config.data)})
    counts = ", ".join(f"{name} {sum(place[3] == k for place in places)}" for k, name in enumerate(PARTS))
    return f"Wrote {len(writer.files)} shards to {folder}: {counts}.\nTrain with: --set data.shards={folder}"


def _survey(config: Config) -> tuple[set[str], list[list[str]]]:
    """First reading: the species, and what each frame of each training file is for."""
    species: set[str] = set()

    def seen(frame: Frame) -> Frame:
        species.update(frame.atoms.get_chemical_symbols())
        return frame

    data = config.data
    entries = [[entry_of(seen(f), data.split) for f in iterate_dataset(d, k)] for k, d in enumerate(data.train)]
    for dataset in [*data.valid, *data.test]:
        for frame in iterate_dataset(dataset):
            seen(frame)
    return species, assign(entries, data)


def _species_and_cutoffs(config: Config, found: set[str]) -> tuple[list[str], np.ndarray]:
    """Species by atomic number, and the cutoff of each ordered pair of them, Angstrom."""
    from ase.data import atomic_numbers

    from asenequip.train.prepare import model_cutoffs

    species = sorted(found, key=lambda name: int(atomic_numbers[name]))
    names, cutoffs = model_cutoffs(config, species)
    order = [names.index(name) for name in species]
    return species, cutoffs[np.ix_(order, order)]


def _frames(config: Config, parts: list[list[str]]) -> Iterator[tuple[int, int, Frame, str]]:
    """Second reading: number of the file, position in it, frame, part."""
    data, number = config.data, len(config.data.train)
    for file, dataset in enumerate(data.train):
        for position, frame in enumerate(iterate_dataset(dataset, file)):
            if parts[file][position] != UNUSED:
                yield file, position, frame, parts[file][position]
    for part in ("valid", "test"):
        for dataset in getattr(data, part):
            for position, frame in enumerate(iterate_dataset(dataset)):
                yield number, position, frame, part
            number += 1


class _ShardWriter:
    """Appends records, beginning a new file where the present one is full."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.files: list[str] = []
        self._left = 0
        self._environment: Any = None

    def add(self, position: int, record: bytes) -> int:
        """Write a record; returns the number of its shard."""
        needed = len(record) + 2 * _PAGE
        if needed > self._left:
            self._begin(max(self.size, needed))
        self._left -= needed
        with self._environment.begin(write=True) as transaction:
            transaction.put(record_key(position), record)
        return len(self.files) - 1

    def _begin(self, size: int) -> None:
        self.close()
        name = f"shard-{len(self.files):05d}.lmdb"
        options: dict[str, Any] = {"subdir": False, "lock": False, "sync": False, "meminit": False, "readahead": False}
        self._environment = load_lmdb().open(str(self.folder / name), map_size=size + 64 * _PAGE, **options)
        self._left = size
        self.files.append(name)

    def close(self) -> None:
        """Finish the present file."""
        if self._environment is not None:
            self._environment.sync(True)
            self._environment.close()
            self._environment = None


def _write_index(folder: Path, table: FrameTable, places: np.ndarray) -> None:
    from safetensors.numpy import save_file

    skipped = ("datasets", "weights")  # come from the settings at hand
    columns = {f.name: getattr(table, f.name) for f in fields(FrameTable) if f.name not in skipped}
    columns["has_stress"] = columns["has_stress"].astype(np.uint8)
    for k, name in enumerate(("file", "position", "shard", "part")):
        columns[name] = np.ascontiguousarray(places[:, k])
    save_file({name: np.ascontiguousarray(values) for name, values in columns.items()}, str(folder / INDEX))
