"""Sphinx settings: Markdown pages, the reference from docstrings, and the tables from the benchmarks' results."""

import sys
from pathlib import Path
from typing import Any

import asenequip

project = "asenequip"
author = "the asenequip developers"
project_copyright = "2026, the asenequip developers"
release = asenequip.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = [
    "_build",
    "generated/tables.md",
    "generated/study.md",
    "generated/accuracy.md",
    "generated/active_*.md",
]
html_theme = "furo"
html_title = f"asenequip {release}"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Write the tables before the pages are read."""
    sys.path.insert(0, str(Path(__file__).parent))
    import accuracy_tables
    import active_tables
    import study_tables
    import tables

    folder = Path(__file__).parent / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "tables.md").write_text(tables.page())
    (folder / "study.md").write_text(study_tables.page())
    (folder / "accuracy.md").write_text(accuracy_tables.page())
    for name in active_tables.RECORDS:
        (folder / f"active_{name}.md").write_text(active_tables.page(name))
