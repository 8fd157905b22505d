"""Frames with their neighbour lists in sharded LMDB files: data sets larger than memory.

A folder of shards holds ``shards.json`` (what it was made from), ``index.safetensors`` (a row per frame, see
`table.FrameTable`) and ``shard-00000.lmdb`` ...: one record per frame, safetensors behind a checksum.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asenequip.files import replace_file
from asenequip.graph import Graph
from asenequip.train.config import ConfigError, Data
from asenequip.train.data import Frame, Sample
from asenequip.train.sources import ISOLATED, shared_zero
from asenequip.train.table import FrameTable

FORMAT = 1
HEADER, INDEX = "shards.json", "index.safetensors"
_CHECKSUM = 4


def load_lmdb() -> Any:
    """The package lmdb.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import lmdb
    except ImportError:
        raise ConfigError("Shards need the package lmdb.\nInstall it with: pip install 'asenequip[lmdb]'") from None
    return lmdb


def encode(frame: Frame, graph: Graph) -> bytes:
    """A frame and its edges as one record.

    Raises
    ------
    ConfigError
        If an edge crosses more than 127 cells.
    """
    from safetensors.numpy import save

    shifts = graph.shifts.numpy()
    if np.abs(shifts).max(initial=0) > np.iinfo(np.int8).max:
        raise ConfigError(f"{frame.source}: an edge crosses more than {np.iinfo(np.int8).max} cells.")
    atoms = frame.atoms
    content = save(
        {
            "numbers": atoms.numbers.astype(np.uint8),
            "positions": np.ascontiguousarray(atoms.positions),
            "cell": np.ascontiguousarray(atoms.cell.array),
            "pbc": atoms.pbc.astype(np.uint8),
            "energy": np.array([frame.energy]),
            "forces": np.ascontiguousarray(frame.forces),
            "stress": np.ascontiguousarray(frame.stress),
            "degrees": np.diff(graph.ptr.numpy()).astype(np.int32),
            "neighbors": graph.neighbors.numpy().astype(np.int32),
            "shifts": shifts.astype(np.int8),
        }
    )
    return zlib.crc32(content).to_bytes(_CHECKSUM, "little") + content


def decode(record: bytes, source: str) -> dict[str, np.ndarray]:
    """The arrays of a record.

    Raises
    ------
    ConfigError
        If the record is damaged; the frame is named.
    """
    from safetensors.numpy import load

    if zlib.crc32(record[_CHECKSUM:]).to_bytes(_CHECKSUM, "little") != record[:_CHECKSUM]:
        raise ConfigError(f"The shards are damaged at {source}.\nWrite them anew with asenequip-train preprocess.")
    return load(record[_CHECKSUM:])


def record_key(position: int) -> bytes:
    """Key of a frame in its shard."""
    return position.to_bytes(8, "big")


def read_record(shard: Path, position: int) -> bytes:
    """The record of a frame.

    The file is opened for it alone, which takes less time than decoding the record: nothing is left open that a second
    reader in the same process, or a forked worker, must not find open.

    Raises
    ------
    KeyError
        If it is not there.
    """
    options = {"subdir": False, "readonly": True, "lock": False, "readahead": False}
    with load_lmdb().open(str(shard), **options) as environment, environment.begin() as transaction:
        record = transaction.get(record_key(position))
    if record is None:
        raise KeyError(position)
    return bytes(record)


class ShardedSamples(Sequence[Sample]):
    """Samples of one part, read from their shard when they are asked for.

    Attributes
    ----------
    table : FrameTable
    names : list of str
        Data set of each.
    """

    def __init__(self, shards: Shards, rows: np.ndarray, species: Sequence[str]) -> None:
        from ase.data import atomic_numbers

        self.shards, self.rows = shards, rows
        self.table = shards.table(rows, species)
        self.names = shards.names(rows)
        self._types = np.full(len(atomic_numbers), -1, dtype=np.int64)
        self._types[[atomic_numbers[name] for name in species]] = np.arange(len(species))

    @property
    def sources(self) -> list[str]:
        """File and position of each."""
        return [self.shards.source(k) for k in self.rows.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self[position] for position in range(*k.indices(len(self)))]
        row = int(self.rows[k])
        arrays = self.shards.arrays(row)
        return Sample(self.shards.frame(row, arrays), graph_from(arrays, self._types))


def graph_from(arrays: dict[str, np.ndarray], types: np.ndarray) -> Graph:
    """The graph of a record; ``types`` is the model's type of each atomic number."""
    ptr = np.zeros(len(arrays["numbers"]) + 1, dtype=np.int64)
    np.cumsum(arrays["degrees"], out=ptr[1:])
    centers = np.repeat(np.arange(len(ptr) - 1), arrays["degrees"])
    return Graph(
        positions=torch.from_numpy(arrays["positions"].copy()),
        cells=torch.from_numpy(arrays["cell"].copy())[None],
        types=torch.from_numpy(types[arrays["numbers"]]),
        frames=torch.zeros(len(ptr) - 1, dtype=torch.int64),
        num_frames=1,
        centers=torch.from_numpy(centers),
        neighbors=torch.from_numpy(arrays["neighbors"].astype(np.int64)),
        shifts=torch.from_numpy(arrays["shifts"].astype(np.float64)),
        ptr=torch.from_numpy(ptr),
    )


class Shards:
    """A folder of shards, opened for the settings of a run.

    Attributes
    ----------
    species : list of str
        Chemical symbols of the frames, by atomic number.
    cutoffs : (T, T) float64
        Cutoff of each ordered pair of species that the neighbour lists were made with, Angstrom.
    isolated : list of Frame
    """

    def __init__(self, folder: str | Path, data: Data) -> None:
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            header = json.loads((folder / HEADER).read_text())
            index = load_file(str(folder / INDEX))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"data.shards: {folder} is not a finished folder of shards ({error}).\n"
                "Write it with: asenequip-train preprocess CONFIG.yaml -o FOLDER"
            ) from None
        _same_data(header, data, folder)
        self.species, self.parts = list(header["species"]), list(header["parts"])
        self.cutoffs = np.array(header["cutoffs"])
        self._files = [folder / name for name in header["files"]]
        self._index, self._datasets = index, [*data.train, *data.valid, *data.test]
        self._numbers = [*range(len(data.train)), *(shared_zero(data, d) for d in [*data.valid, *data.test])]
        self.isolated = [self.frame(row, self.arrays(row)) for row in self.rows(ISOLATED).tolist()]

    def rows(self, part: str) -> np.ndarray:
        """Rows of the index that belong to a part, in the order of the files."""
        return np.flatnonzero(self._index["part"] == self.parts.index(part))

    def source(self, row: int) -> str:
        """File and position of a frame."""
        return f"{self._datasets[int(self._index['file'][row])].path}#{int(self._index['position'][row])}"

    def names(self, rows: np.ndarray) -> list[str]:
        """Data set of each frame."""
        labels = [dataset.label for dataset in self._datasets]
        return [labels[file] for file in self._index["file"][rows].tolist()]

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """The arrays of a frame."""
        return decode(read_record(self._files[int(self._index["shard"][row])], row), self.source(row))

    def frame(self, row: int, arrays: dict[str, np.ndarray]) -> Frame:
        """The labelled frame of a record."""
        number = int(self._index["file"][row])
        dataset = self._datasets[number]
        pbc = arrays["pbc"].astype(bool)
        atoms = Atoms(arrays["numbers"], positions=arrays["positions"], cell=arrays["cell"], pbc=pbc)
        return Frame(
            atoms=atoms,
            energy=float(arrays["energy"][0]),
            forces=arrays["forces"],
            stress=arrays["stress"],
            source=self.source(row),
            dataset=self._numbers[number],
            weight=dataset.weight,
            name=dataset.label,
        )

    def table(self, rows: np.ndarray, species: Sequence[str]) -> FrameTable:
        """The table of some rows, its columns in the order of the model's species."""
        files = self._index["file"][rows]
        columns: dict[str, np.ndarray] = {
            "datasets": np.array(self._numbers, dtype=np.int64)[files],
            "weights": np.array([dataset.weight for dataset in self._datasets])[files],
        }
        order = [self.species.index(name) if name in self.species else len(self.species) for name in species]
        for field in fields(FrameTable):
            if field.name not in columns:
                values = self._index[field.name][rows]
                if values.ndim == 2:  # a species that the frames lack has a column of zeros
                    values = np.concatenate([values, np.zeros_like(values[:, :1])], axis=1)[:, order]
                columns[field.name] = values
        columns["has_stress"] = columns["has_stress"].astype(bool)
        return FrameTable(**columns)

    def samples(self, part: str, species: Sequence[str], cutoffs: np.ndarray) -> ShardedSamples:
        """The samples of a part.

        Raises
        ------
        ConfigError
            If the neighbour lists were made with other cutoffs than the model has, or for other species.
        """
        missing = [name for name in self.species if name not in species]
        if missing:
            raise ConfigError(f"The shards hold {', '.join(missing)}, which model.species lacks.")
        order = [list(species).index(name) for name in self.species]
        if not np.array_equal(cutoffs[np.ix_(order, order)], self.cutoffs):
            raise ConfigError(
                "The shards' neighbour lists were made with other cutoffs than the model's.\n"
                "Write them anew with asenequip-train preprocess."
            )
        return ShardedSamples(self, self.rows(part), species)


DATA_SETTINGS = {"path", "index", "keys", "units"}
"""Settings of a data set that the records depend on."""


def data_record(data: Data) -> dict[str, Any]:
    """The settings that decide what the shards hold."""
    record = data.model_dump(mode="json", include={"split", "max_frames"})
    for name in ("train", "valid", "test"):
        record[name] = [dataset.model_dump(mode="json", include=DATA_SETTINGS) for dataset in getattr(data, name)]
    return record


def _same_data(header: dict[str, Any], data: Data, folder: Path) -> None:
    if header.get("format") != FORMAT:
        raise ConfigError(f"{folder} has another format of shards.\nWrite it anew with asenequip-train preprocess.")
    now = data_record(data)
    changed = [f"data.{name}" for name, value in now.items() if header["data"].get(name) != value]
    if changed:
        raise ConfigError(
            f"{folder} was written with another {', '.join(changed)}.\n"
            "Put the settings back, or write the shards anew with asenequip-train preprocess."
        )


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Declare a folder of shards finished."""
    replace_file(folder / HEADER, (json.dumps({"format": FORMAT, **header}, indent=1) + "\n").encode())
