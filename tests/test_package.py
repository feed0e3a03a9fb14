import importlib
import subprocess
import sys

import pytest

import retrace_pl

HEAVY = ("torch", "lightning", "stable_baselines3", "numpy", "jsonargparse", "rich")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, retrace_pl; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", retrace_pl.__all__)
def test_every_public_name_is_there(name):
    found = getattr(retrace_pl, name)
    if name != "__version__":
        assert found.__name__ == name
        assert getattr(importlib.import_module(found.__module__), name) is found
    assert name in dir(retrace_pl)


def test_every_lazy_name_is_public():
    assert {*retrace_pl._MODULES, "__version__"} == {*retrace_pl.__all__}


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Adit'"):
        retrace_pl.Adit  # noqa: B018
