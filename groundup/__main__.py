"""``python -m groundup`` is the same as ``groundup``."""

from __future__ import annotations

from groundup.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
