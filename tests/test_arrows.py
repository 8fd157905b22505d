"""Imports point downward: read from the sources, without running them."""

from __future__ import annotations

import ast
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("errors", "files", "interrupt", "lazy", "memory", "settings"),
    ("kernels",),
    ("celllist", "neighbors"),
    ("graph", "listcache", "results", "rounding"),
    ("model",),
    ("fused", "resident"),
    ("golden", "artifact"),
    ("compiling", "compiledgraph"),
    ("evaluate",),
    ("uncertainty",),
    ("calculator",),
)
"""From the ground up; a module imports from its own layer and those below it, and everything else stands on top."""
SIDES = {
    "train": set(),
    "cluster": set(),
    "active": {"train", "cluster"},
    "interface": {"cluster"},
    "properties": set(),
    "engines": set(),
}
"""The packages at the top, and which of one another they may import."""


def sources() -> list[tuple[str, Path]]:
    """Each source file with its module's name inside asenequip, such as "model.track"; "" for asenequip itself."""
    files = [(path, path.relative_to(ROOT / "asenequip")) for path in (ROOT / "asenequip").rglob("*.py")]
    files += [(path, Path("kernels") / path.relative_to(ROOT / "kernels")) for path in (ROOT / "kernels").rglob("*.py")]
    return [(".".join(inner.with_suffix("").parts).removesuffix("__init__").rstrip("."), path) for path, inner in files]


def imports(name: str, text: str, is_package: bool) -> set[str]:
    """Modules of asenequip that a source imports anywhere, by their names inside it; types for checkers included."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["asenequip", *name.split(".")] if name else ["asenequip"]
                package = package[: len(package) - node.level + (1 if is_package else 0)]
                base = ".".join([*package, *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {module.removeprefix("asenequip.") for module in found if module.startswith("asenequip.")}


def level(name: str) -> int:
    top = name.partition(".")[0]
    return next((k for k, layer in enumerate(LAYERS) if top in layer), len(LAYERS))


@pytest.mark.parametrize(("name", "path"), sources(), ids=lambda value: str(value) if isinstance(value, str) else "")
def test_imports_point_downward(name, path):
    if name == "":
        pytest.skip("asenequip/__init__.py imports its public names lazily")
    used = imports(name, path.read_text(), path.name == "__init__.py")
    upward = {module for module in used if level(module) > level(name) and is_module(module)}
    assert upward == set()


@pytest.mark.parametrize("side", SIDES)
def test_the_sides_do_not_know_one_another(side):
    for name, path in sources():
        if name.partition(".")[0] != side:
            continue
        used = {module.partition(".")[0] for module in imports(name, path.read_text(), path.name == "__init__.py")}
        assert used & (set(SIDES) - {side}) <= SIDES[side], name


def is_module(name: str) -> bool:
    """Whether a dotted name inside asenequip is a module (and not a function of one)."""
    folder = ROOT / "asenequip" / Path(*name.split("."))
    kernels = ROOT / Path(*name.split("."))
    return any(p.with_suffix(".py").is_file() or (p / "__init__.py").is_file() for p in (folder, kernels))


def test_an_upward_import_would_be_seen():
    text = "from asenequip.calculator import AllegroCalculator\nimport asenequip.train.loop\nfrom ..evaluate import x"
    used = imports("model.track", text, is_package=False)
    assert {"calculator", "train.loop", "evaluate"} <= used
    assert all(level(module) > level("model.track") for module in ("calculator", "train.loop", "evaluate"))


def test_nothing_of_the_kernels_knows_atoms_or_models():
    for name, path in sources():
        if name.startswith("kernels"):
            text = path.read_text()
            used = imports(name, text, path.name == "__init__.py")
            assert {module.partition(".")[0] for module in used} <= {"kernels", "errors", "files"}, name
            assert "ase" not in {n.split(".")[0] for n in top_level(text)}, name


def top_level(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
    return found


def test_every_package_is_installed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "asenequip").rglob("__init__.py")}
    assert listed - {"asenequip.kernels"} == {".".join(folder.parts) for folder in folders}
