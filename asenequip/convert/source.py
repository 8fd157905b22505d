"""Opening a foreign model file: only after permission, and only in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from asenequip.convert.errors import ConversionError

_LAUNCH = (
    "import sys; folder = sys.argv[1]; sys.path[:] = [folder] + [p for p in sys.path if p]; "
    "from asenequip_extract.main import main; main(sys.argv[2:])"
)


@dataclass(frozen=True)
class Source:
    """What the extraction left behind.

    Attributes
    ----------
    description : dict
        Hyperparameters, test structure and reference results; see `asenequip.convert.extract`.
    weights : dict of str to Tensor
        float64, by the reference's names.
    """

    description: Mapping[str, Any]
    weights: dict[str, Tensor]


def check_source(path: Path, trust_pickle: bool) -> None:
    """Refuse what is no checkpoint or package, and pickles without permission; opens nothing.

    Raises
    ------
    FileNotFoundError, ConversionError
    """
    name = path.name
    if name.endswith((".pt2", ".pth")):
        raise ConversionError(
            f"'{path}' is a compiled model: it holds machine code, not the model.\n"
            "Convert the package (.nequip.zip) or the checkpoint (.ckpt) that it was compiled from."
        )
    if not name.endswith((".ckpt", ".nequip.zip")):
        raise ConversionError(
            f"The source must be a nequip checkpoint (.ckpt) or package (.nequip.zip). Got '{path}' instead.\n"
            "Make a package from a training run with: nequip-package build best.ckpt model.nequip.zip"
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no model at '{path}'. Check the path.")
    if not trust_pickle:
        raise ConversionError(
            f"'{path}' consists of Python pickles, and opening a pickle runs whatever code is in it.\n"
            "If you trust its origin, allow it: --trust-pickle on the command line, trust_pickle=True in Python."
        )


def read_source(path: Path, python: str | None = None) -> Source:
    """Have an interpreter that has nequip-allegro read the file, and collect what it leaves.

    Parameters
    ----------
    path : Path
        Checked by `check_source`.
    python : str, optional
        Interpreter; the present one by default.

    Raises
    ------
    ConversionError
        If the interpreter lacks nequip-allegro, the file cannot be opened, or it holds something unknown.
    """
    interpreter = python or sys.executable
    with tempfile.TemporaryDirectory(prefix="asenequip-convert-") as name:
        folder = Path(name)
        scripts = Path(__file__).parent / "extract"
        shutil.copytree(scripts, folder / "asenequip_extract", ignore=shutil.ignore_patterns("__pycache__"))
        command = [interpreter, "-c", _LAUNCH, str(folder), str(path.resolve()), str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise ConversionError(
                f"The interpreter '{interpreter}' cannot be started ({error}).\n"
                "Name a Python that has nequip and nequip-allegro: python='/path/to/python'."
            ) from error
        refusal, description = folder / "refusal.json", folder / "description.json"
        if refusal.is_file():
            message = json.loads(refusal.read_text())["message"]
            raise ConversionError(f"'{path}' cannot be converted. {message}")
        if done.returncode or not description.is_file():
            raise _failed(path, interpreter, done.stderr)
        return Source(json.loads(description.read_text()), load_file(folder / "weights.safetensors"))


def _failed(path: Path, interpreter: str, stderr: str) -> ConversionError:
    lines = [line for line in stderr.strip().splitlines() if line.strip()] or ["no message"]
    missing = [m for m in ("nequip", "allegro", "torch") if f"No module named '{m}'" in lines[-1]]
    if missing:
        return ConversionError(
            f"The interpreter '{interpreter}' has no package '{missing[0]}', which it takes to open '{path}'.\n"
            "Install it (pip install 'asenequip[convert]'), or name a Python that has it: python='/path/to/python'."
        )
    tail = "\n".join(f"    {line}" for line in lines[-4:])
    return ConversionError(
        f"nequip could not open '{path}':\n{tail}\n"
        "Check that the file is whole and that its nequip version is the installed one."
    )
