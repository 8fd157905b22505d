"""``python -m asenequip``: the command ``asenequip`` of this very Python, wherever that is installed."""

from asenequip.cli import main

if __name__ == "__main__":
    main()
