"""Numbers as files: columns as CSV, results as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asenequip.files import write_new


def write_csv(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length under their names, numbers to full precision; the file must be new."""
    lines = [",".join(columns)]
    lines += [",".join(_cell(value) for value in row) for row in zip(*columns.values(), strict=True)]
    write_new(path, ("\n".join(lines) + "\n").encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values, arrays and dataclasses among them; the file must be new."""
    write_new(path, (json.dumps(plain(values), indent=1) + "\n").encode())


def plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _cell(value: Any) -> str:
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)
