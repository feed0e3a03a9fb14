"""Entry point of `retrace` and `python -m retrace_pl`."""

from __future__ import annotations

import sys

from retrace_pl.cli import main as run


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
