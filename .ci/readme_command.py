"""Print the README's command number 0 or 1: the one line of its first or second fenced bash block."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    """Contents of the fenced bash blocks of a Markdown text."""
    return [block.strip() for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


if __name__ == "__main__":
    print(commands((Path(__file__).parents[1] / "README.md").read_text())[int(sys.argv[1])])
