"""Code of one's own is part of every key; the package's own is known by its version in the keys of finished stages."""

import linecache
import sys
import types

import pytest

from retrace_pl.pipeline.code import code_hashes, own_code
from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import stage_keys


@pytest.fixture
def rule(tmp_path, monkeypatch):
    """The file of a method that a package of the user's passes on."""
    package = tmp_path / f"rules_of_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text(f"from {package.name}.rule import Rule\n")
    (package / "rule.py").write_text("from retrace_pl.unlearning import Identity\n\nclass Rule(Identity): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__(package.name)  # it stays imported: jsonargparse goes through every subclass of a method by its module
    return package / "rule.py"


def test_code_of_ones_own_is_in_the_keys(rule):
    settings = {"class_path": f"{rule.parent.name}.Rule", "init_args": {"inner": [{"class_path": "torch.optim.SGD"}]}}
    before = code_hashes(settings)
    assert list(before) == [f"{rule.parent.name}.Rule"], "a library is known by its version"
    assert list(code_hashes({"class_path": "retrace_pl.attacks.ReTrace"})) == ["retrace_pl.attacks.ReTrace"]
    assert own_code({"class_path": "retrace_pl.attacks.ReTrace"}) == []
    rule.write_text("class Rule: pass\n")
    assert code_hashes(settings) != before


def test_a_class_of_a_notebook_is_known_by_its_cell(monkeypatch):
    def run_cell(source):
        name = f"<cell {len(linecache.cache)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        notebook = types.ModuleType("a_notebook")  # has no file, as the module in which a notebook's cells run
        exec(compile(source, name, "exec"), notebook.__dict__)
        monkeypatch.setitem(sys.modules, "a_notebook", notebook)
        return code_hashes({"class_path": "a_notebook.Rule"})

    cell = "class Rule:\n    def edit(self):\n        return 1\n"
    first = run_cell(cell)
    assert list(first) == ["a_notebook.Rule"]
    assert run_cell(cell) == first
    assert run_cell(cell.replace("1", "2")) != first


def test_an_edited_method_runs_again_from_its_own_stage_on(rule, tiny):
    settings = parse("audit", "", ["--config", tiny, "--unlearning", f"{rule.parent.name}.Rule"]).settings
    before = stage_keys(settings)
    assert stage_keys(settings) == before
    rule.write_text(rule.read_text() + "# edited\n")
    after = stage_keys(settings)
    assert [name for name in STAGES if before[name] != after[name]] == ["unlearn", "attack", "evaluate", "report"]
