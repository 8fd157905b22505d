"""Oracles: the same physics written plainly, slowly, and independently of the package."""
