"""The zoo by name agrees with what is exported, with the packaged presets and with the documentation."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

import retrace_pl.unlearning as zoo
from retrace_pl.errors import InputError
from retrace_pl.unlearning import METHODS, Choice, Span, UnlearningMethod, as_method, get_method
from retrace_pl.unlearning.base import NEEDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "unlearning.md").read_text(encoding="utf-8")
OWN_RULE = (ROOT / "docs" / "extending" / "unlearning.md").read_text(encoding="utf-8")
EXPORTED = {name: part for name in zoo.__all__ if isinstance(part := getattr(zoo, name), type)}
CLASSES = {part for part in EXPORTED.values() if issubclass(part, UnlearningMethod)} - {UnlearningMethod}


def constructor_arguments(kind):
    """Names of all arguments, those that go on to the base class through `**kwargs` included."""
    names = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        names |= {p.name for p in parameters.values() if p.kind is not p.VAR_KEYWORD} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def test_the_registry_holds_every_exported_method_once():
    assert set(METHODS.values()) == CLASSES
    assert len(METHODS) == len(CLASSES)
    assert len(set(zoo.__all__)) == len(zoo.__all__)


@pytest.mark.parametrize("name", METHODS)
def test_every_name_is_a_module_and_a_preset_of_its_class(name):
    kind = get_method(name)
    assert kind.__module__ == f"retrace_pl.unlearning.{name}"
    assert EXPORTED[kind.__name__] is kind
    preset = yaml.safe_load((ROOT / "configs" / "unlearning" / f"{name}.yaml").read_text())
    assert preset["class_path"] == f"retrace_pl.unlearning.{kind.__name__}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in (ROOT / "configs/unlearning").rglob("*.yaml")}))
def test_every_preset_is_named_after_its_method(folder):
    for path in folder.glob("*.yaml"):
        name = yaml.safe_load(path.read_text())["class_path"].rpartition(".")[2]
        key = next(key for key, kind in METHODS.items() if kind.__name__ == name)
        assert path.stem == key or path.stem.startswith(f"{key}_"), f"{path} is a preset of {key}"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"no 'forgetting'; choose one of .*retain_finetune"):
        get_method("forgetting")


@pytest.mark.parametrize("name", METHODS)
def test_needs_are_declared_and_known(name):
    kind = METHODS[name]
    assert any("needs" in vars(base) for base in kind.__mro__ if base not in (UnlearningMethod, object))
    assert kind.needs <= NEEDS


@pytest.mark.parametrize("name", METHODS)
def test_search_ranges_belong_to_arguments_and_hold_values_that_build(name):
    kind = METHODS[name]
    arguments = constructor_arguments(kind)
    assert set(kind.search_space) <= arguments
    assert len(kind.search_space) <= 5
    assert "strength" in arguments
    for end in (0, -1):
        settings = {
            key: (span.values if isinstance(span, Choice) else (span.low, span.high))[end]
            for key, span in kind.search_space.items()
        }
        method = kind(**settings)
        for key, value in settings.items():
            if key != "optimizer":
                assert getattr(method, key) == value, "tuning reads a setting back by its name"
    assert all(isinstance(span, Span | Choice) for span in kind.search_space.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_page_has_a_row_that_says_what_the_method_needs(name):
    rows = re.findall(rf"^\| `{name}`(.*)$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 1, f"docs/unlearning.md has {len(rows)} rows for {name}"
    mark, rule, needs, strength, source = re.split(r" ?(?<!\\)\| ?", rows[0])[:5]
    assert needs == ", ".join(word for word in ("retain", "forget", "cache") if word in METHODS[name].needs) or (
        needs == "nothing" and not METHODS[name].needs
    )
    assert ("⊕" in mark) is METHODS[name].weighs_forget
    assert (strength == "learning rate") is METHODS[name].strength_scales_lr
    assert rule
    assert source


def blocks(language):
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", OWN_RULE, flags=re.DOTALL)


def test_the_rules_on_the_page_work():
    own, benchmark = ({} for _ in range(2))
    for code, names in zip(blocks("python"), (own, benchmark), strict=True):
        exec(code, names)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    retain, forget = ((torch.randn(5, 4), torch.randint(3, (5,))) for _ in range(2))
    method = own["Uniform"](lr=0.1, strength=2.0, momentum=0.0)
    uniform = torch.full((5, 3), 1 / 3)
    divergence = functional.kl_div(model(forget[0]).log_softmax(1), uniform, reduction="batchmean")
    expected = functional.cross_entropy(model(retain[0]), retain[1]) + 2 * divergence
    result = method.unlearn_step(model, retain, forget, method.configure_optimizer(model.parameters()), 0, 0)
    torch.testing.assert_close(result["loss"], expected.detach())
    plain = as_method(benchmark["UnlearningMethod"]())
    loss = functional.cross_entropy(model(retain[0]), retain[1]).item()
    optimizer = plain.configure_optimizer(model.parameters())
    assert plain.unlearn_step(model, retain, forget, optimizer, 0, 0)["loss"] == pytest.approx(loss)


def test_forget_losses_are_averaged_or_weighted():
    losses, batch = torch.tensor([1.0, 2.0, 6.0]), (torch.zeros(3, 1), torch.tensor([0, 1, 2]))
    method = UnlearningMethod()
    assert float(method.forget_mean(losses, batch)) == 3.0
    weights = torch.tensor([3.0, 0.0, 0.5], requires_grad=True)
    seen = []
    method.forget_weights = lambda given: (seen.append(given), weights)[1]
    losses.requires_grad_()
    mean = method.forget_mean(losses, batch)
    mean.backward()
    assert float(mean.detach()) == 2.0
    assert seen == [batch]
    assert weights.grad is None, "weights are constants"
    torch.testing.assert_close(losses.grad, torch.tensor([1.0, 0.0, 1 / 6]))


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.weighs_forget])
def test_methods_that_weigh_use_the_weights_in_their_loss(name):
    """With all weights 0 the forget records have no say, with 2 twice as much as with 1."""

    def first_loss(weight):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        retain, forget = ((torch.rand(4, 1, 2, 3), torch.tensor([0, 1, 2, 0])) for _ in range(2))
        method = METHODS[name]()
        method.forget_weights = lambda batch: torch.full((len(batch[1]),), weight)
        method.prepare(model)
        method.edit(model, [retain], [forget])
        method.set_mode(model)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():  # away from the teacher, where divergences have no gradient
                parameter.add_(0.1)
        losses = []
        method.bind_backward(lambda loss: (losses.append(float(loss.detach())), loss.backward()))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
        method.unlearn_step(model, retain, forget, optimizer, 0, 0)
        return sum(losses)

    none, one, two = (first_loss(weight) for weight in (0.0, 1.0, 2.0))
    assert abs(one - none) > 1e-4
    assert two - none == pytest.approx(2 * (one - none), rel=1e-3)
