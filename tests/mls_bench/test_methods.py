import copy

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.mls_bench.methods import find_method
from retrace_pl.mls_bench.settings import Limits
from retrace_pl.unlearning import Identity, NegativeGradient, UnlearningMethod

LIMITS = Limits(unlearn_epochs=3, batch_size=16)

# The benchmark's own scaffold: it imports nothing, because its module has torch and F at the top.
SCAFFOLD = """
class UnlearningMethod:
    def __init__(self):
        self.forget_weight = 0.0
        self.lr = "mine"
        self.epochs = None
        self.strength = -1
        self.optimizer = "lion"

    def prepare(self, a, b, c):
        raise AssertionError("not a hook of the benchmark")

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        retain_x, retain_y = retain_batch
        loss = F.cross_entropy(model(retain_x), retain_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}
"""


def file(tmp_path, text, name="my_rule.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_file_runs_with_the_benchmarks_recipe_whatever_its_attributes(tmp_path):
    plug = find_method(file(tmp_path, SCAFFOLD), LIMITS)
    method = plug.method
    assert plug.name == "my_rule"
    assert not plug.resumable
    assert (method.epochs, method.batch_size, method.lr, method.optimizer_name) == (3, 16, 1e-3, "adam")
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.weight)
    method.prepare(model)
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    result = method.unlearn_step(model, batch, batch, method.configure_optimizer(model.parameters()), 0, 0)
    assert isinstance(result["loss"], float)
    assert not torch.equal(before, model.weight)


def test_neighbours_and_dataclasses_of_a_file(tmp_path):
    (tmp_path / "my_helpers_of_the_rule.py").write_text("WEIGHT = 2")
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport my_helpers_of_the_rule as h\n"
        "@dataclass\nclass UnlearningMethod:\n    weight: int = h.WEIGHT\n"
        "    def unlearn_step(self, *batches):\n        return {'loss': self.weight}\n"
    )
    plug = find_method(file(tmp_path, text), LIMITS)
    assert plug.method.unlearn_step(None, None, None, None, 0, 0) == {"loss": 2}


def test_the_source_of_a_file_decides_what_may_be_reused(tmp_path):
    first = find_method(file(tmp_path, SCAFFOLD), LIMITS).source
    assert find_method(file(tmp_path, SCAFFOLD), LIMITS).source == first
    assert find_method(file(tmp_path, SCAFFOLD + "\n"), LIMITS).source != first


def test_a_file_with_a_retrace_method_keeps_its_hooks_and_gets_the_recipe(tmp_path):
    text = (
        "from retrace_pl.unlearning import NegativeGradient\n"
        "class UnlearningMethod(NegativeGradient):\n    def __init__(self):\n"
        "        super().__init__(epochs=9, lr=0.5)\n"
    )
    path = file(tmp_path, text)
    assert find_method(path, LIMITS).method.lr == 1e-3
    assert find_method(path, LIMITS).method.epochs == 3
    own = find_method(path, LIMITS, own_settings=True)
    assert (own.method.lr, own.method.epochs, own.own_settings) == (0.5, 9, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no class UnlearningMethod"),
        ("UnlearningMethod = 3", "no class UnlearningMethod"),
        ("class UnlearningMethod:\n    pass", "unlearn_step"),
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("def broken(:", "SyntaxError"),
        ("class UnlearningMethod:\n    def __init__(self, lr): ...", "takes no arguments"),
        ("a = 1\nb = a / 0", "(my_rule.py, line 2)"),
        ("import sys\nsys.exit('bye')", "SystemExit: bye"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        find_method(file(tmp_path, text), LIMITS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", '"loss"'),
        ("return {}", '"loss"'),
        ("return {'loss': None}", "(NoneType); return loss.item()"),
        ("return {'loss': torch.ones(2)}", "(Tensor)"),
        ("return {'loss': 'low'}", "(str)"),
        ("return 1 / 0", "step 7: ZeroDivisionError"),
        ("raise SystemExit(3)", "step 7: SystemExit"),
        ("return self.helper()\n    def helper(self):\n        return [][0]", "(my_rule.py, line 5)"),
    ],
)
def test_steps_that_cannot_be_used(tmp_path, body, message):
    text = f"class UnlearningMethod:\n    def unlearn_step(self, *args):\n        {body}\n"
    with pytest.raises(InputError, match="my_rule") as caught:
        find_method(file(tmp_path, text), LIMITS).method.unlearn_step(None, None, None, None, 7, 0)
    assert message in str(caught.value)


def test_an_error_names_the_innermost_line_of_the_file_also_by_its_relative_path(tmp_path, monkeypatch):
    text = "import json\nclass UnlearningMethod:\n    def unlearn_step(self, *args):\n        return self.read()\n"
    file(tmp_path, text + "    def read(self):\n        return json.loads('{')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"\(my_rule.py, line 6\)"):
        find_method("my_rule.py", LIMITS).method.unlearn_step(None, None, None, None, 0, 0)


def test_what_a_step_returns_beside_the_loss_changes_nothing(tmp_path):
    text = (
        "class UnlearningMethod:\n    def unlearn_step(self, *args):\n"
        "        return {'loss': 1, 'stop': True, 'logits': torch.ones(4, 3), 'note': 'x', 'kl': torch.tensor(0.5)}\n"
    )
    result = find_method(file(tmp_path, text), LIMITS).method.unlearn_step(None, None, None, None, 0, 0)
    assert result == {"loss": 1, "kl": 0.5}


@pytest.mark.parametrize("name", ["no_such_rule", "folder/missing.py", "missing.py"])
def test_unknown_methods(name):
    with pytest.raises(InputError, match="--method"):
        find_method(name, LIMITS)


def test_methods_of_the_zoo():
    one_shot = find_method("identity", LIMITS).method
    assert one_shot.epochs == 0
    iterative = find_method("gradient_ascent", LIMITS).method
    assert (iterative.epochs, iterative.lr, iterative.optimizer_name) == (3, 1e-3, "adam")
    own = find_method("negative_gradient", LIMITS, own_settings=True).method
    assert (own.epochs, own.form) == (NegativeGradient().epochs, "neggrad+")


def test_objects_from_python():
    given = NegativeGradient(lr=0.5, epochs=7)
    plug = find_method(given, LIMITS)
    assert plug.method is given
    assert (given.lr, given.epochs, given.optimizer_name) == (1e-3, 3, "adam")
    assert find_method(Identity(), LIMITS).method.epochs == 0
    assert not find_method(Plain(), LIMITS).resumable
    assert find_method(Plain(), LIMITS).source is None


class Plain:
    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        return {"loss": 0.0}


def test_plain_objects_are_not_taken_for_methods_of_the_package():
    assert not isinstance(Plain(), UnlearningMethod)
    assert find_method(Plain(), LIMITS).method.name == "Plain"
