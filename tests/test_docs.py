"""The documentation says what the code says: README's commands, error texts, links, verbs, flags, names, options."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import typer

from asenequip.cli import app
from asenequip.train.cli import app as training

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


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def documented(block: str) -> Iterator[tuple[str, object]]:
    """Names that a block imports from the package, and what they are; fails where there is none."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "asenequip":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_pages_imports_and_calls_what_there_is(page):
    names: dict[str, object] = {}
    for block in python_blocks(page):
        try:
            names |= dict(documented(block))
        except ImportError as error:
            pytest.skip(str(error))
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and callable(names.get(call.func.id)):
                options = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                inspect.signature(names[call.func.id]).bind_partial(*call.args, **options)


def command_lines() -> list[tuple[str, str]]:
    """Page and line of each command of the package's that a page shows, one that goes on with a backslash joined."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        shown = re.findall(r"^    (asenequip(?:-train)? .*)$", text, re.MULTILINE)
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            shown += re.findall(r"^(asenequip(?:-train)? .*)$", block, re.MULTILINE)
        found += [(page.name, line) for line in shown]
    return found


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_of_the_pages_have_the_flags_that_they_show(page, line):
    program, *words = shlex.split(line, comments=True)
    command = typer.main.get_command({"asenequip": app, "asenequip-train": training}[program])
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):  # asenequip-train CONFIG is short for asenequip-train run CONFIG
        command = command.commands["run"]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    shown = words[: words.index("--")] if "--" in words else words
    assert [word for word in shown if re.match("--?[a-zA-Z]", word) and word not in flags] == []
