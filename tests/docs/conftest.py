"""The modules that make the pages of the documentation."""

import importlib
import sys
from pathlib import Path

import pytest

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture(scope="session")
def hooks():
    """Imports a module of docs/hooks by its name."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    pytest.importorskip("latex2mathml", reason="needs the extra `docs`")
    sys.path.insert(0, str(HOOKS))
    yield importlib.import_module
    sys.path.remove(str(HOOKS))
