"""The documentation says what the code says: README's commands, error texts, links, verbs."""

from __future__ import annotations

import ast
import os
import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from asenequip.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def bash_blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@lru_cache(maxsize=1)
def literals() -> str:
    """All string constants of the sources, pieces of f-strings put together, a gap for each value."""
    texts = []
    for folder in ("asenequip", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_readme_begins_with_two_commands_of_one_line():
    first, second = bash_blocks()[:2]
    assert first.count("\n") == second.count("\n") == 1


def test_readme_s_first_command_makes_an_environment_with_the_pinned_torch_first():
    steps = [shlex.split(step) for step in bash_blocks()[0].split("&&")]
    assert steps[0][:3] == ["python3.11", "-m", "venv"]
    assert steps[1][-5:] == ["pip", "install", "-c", "constraints.txt", "torch"]
    assert steps[2][-5:] == ["install", "-c", "constraints.txt", "-e", "."]
    assert (ROOT / steps[3][-1]).is_file()
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_readme_s_second_command_is_what_continuous_integration_runs():
    assert bash_blocks()[1] == "bash .ci/run\n"
    assert os.access(ROOT / ".ci" / "run", os.R_OK)


def keys() -> list[str]:
    return re.findall(r'^\*\*"(.*?)"\*\*$', (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("key", keys())
def test_each_error_text_of_the_troubleshooting_page_is_in_the_code(key):
    assert key in literals()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_command_line_page_has_every_verb():
    text = (ROOT / "docs" / "command_line.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f"`asenequip {name} " not in text] == []
