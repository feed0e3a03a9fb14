from typing import ClassVar

import pytest
import yaml

from retrace_pl.errors import InputError
from retrace_pl.tuning.target import find_target, make_target, preset_files, tunable, widened, within
from retrace_pl.unlearning import METHODS, Choice, GradientAscent, Guard, NegativeGradient, Span, UnlearningMethod


def path(name):
    return f"retrace_pl.unlearning.{name}"


def test_a_method_starts_from_its_published_settings():
    target = find_target("gradient_ascent", "no_such_setting")
    published = yaml.safe_load(preset_files("")["gradient_ascent"].read_text())["init_args"]
    assert target.class_path == path("GradientAscent")
    assert len(target.starts) == 1
    assert target.starts[0] == {knob: published.get(knob, getattr(GradientAscent(), knob)) for knob in target.space}
    built = target.build({"lr": 0.003, "target_accuracy": 0.25})
    assert (type(built), built.lr, built.target_accuracy) == (GradientAscent, 0.003, 0.25)
    assert built.clip_norm == published["clip_norm"], "what is no knob stays as it was"


def test_a_preset_of_the_setting_gives_the_fixed_settings_and_the_second_start():
    target = find_target("retain_finetune", "digits")
    preset = yaml.safe_load(preset_files("digits")["retain_finetune"].read_text())["init_args"]
    published = yaml.safe_load(preset_files("")["retain_finetune"].read_text())["init_args"]
    assert target.starts[0]["lr"] == published["lr"]
    assert target.starts[1]["lr"] == preset["lr"]
    assert target.init_args == preset


def test_presets_of_other_settings_are_starts_too():
    target = find_target("scrub", "no_such_setting", ["digits"])
    published, digits = (
        yaml.safe_load(preset_files(name)["scrub"].read_text())["init_args"] for name in ("", "digits")
    )
    assert [start["lr"] for start in target.starts] == [published["lr"], digits["lr"]]
    assert find_target("scrub", "digits", ["digits"]).starts == find_target("scrub", "digits").starts
    with pytest.raises(InputError, match="--start-from nowhere: no packaged presets"):
        find_target("scrub", "digits", ["nowhere"])


def test_a_limit_on_epochs_caps_range_and_starts_but_nothing_else():
    free = find_target("scrub", "digits")
    limited = free.limited(2)
    assert limited.space["epochs"] == Span(1, 2)
    assert free.space["epochs"].low > 2, "the range lay above the limit as a whole"
    assert [start["epochs"] for start in limited.starts] == [2] * len(limited.starts)
    assert {knob: span for knob, span in limited.space.items() if knob != "epochs"} == {
        knob: span for knob, span in free.space.items() if knob != "epochs"
    }
    assert [start["lr"] for start in limited.starts] == [start["lr"] for start in free.starts]


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"class_path": "NegativeGradient", "init_args": {"a": 0.7, "epochs": 3}}))
    target = find_target(str(file), "digits")
    assert (target.name, target.class_path) == ("mine", path("NegativeGradient"))
    assert target.build({"lr": 0.5}).a == 0.7
    assert target.starts == [{"lr": 0.01, "epochs": 3, "strength": 1.0}]


def test_ranges_are_widened_to_the_starts():
    class Tight(NegativeGradient):
        search_space: ClassVar = {
            "lr": Span(1e-4, 1e-3, log=True),
            "epochs": Span(1, 3),
            "form": Choice(("mls_bench",)),
        }

    globals()["Tight"] = Tight
    target = make_target("tight", {"class_path": f"{__name__}.Tight", "init_args": {"epochs": 9, "lr": 0.02}}, [])
    assert target.space["lr"] == Span(1e-4, 0.02, log=True)
    assert target.space["epochs"] == Span(1, 9)
    assert target.space["epochs"].whole
    assert target.space["form"].values == ("mls_bench", "neggrad+")


def test_a_start_that_no_logarithmic_range_holds_is_told_as_the_nearest_value():
    space = {"weight_decay": Span(1e-5, 1e-2, log=True), "epochs": Span(1, 5), "form": Choice(("a", "b"))}
    start = {"weight_decay": 0.0, "epochs": 9, "form": "b"}
    assert within(start, space) == {"weight_decay": 1e-5, "epochs": 5, "form": "b"}
    assert widened(space, [start])["weight_decay"] == Span(1e-5, 1e-2, log=True)


def test_the_knobs_of_a_wrapped_method_are_reached_by_dotted_names():
    base = {
        "class_path": path("Guard"),
        "init_args": {"inner": {"class_path": path("GradientAscent"), "init_args": {"clip_norm": 0.5}}},
    }
    target = make_target("guarded", base, [])
    assert {"temperature", "lr", "inner.target_accuracy"} <= set(target.space)
    assert "inner.lr" not in target.space, "Guard sets that itself"
    built = target.build({"lr": 0.002, "inner.target_accuracy": 0.4})
    assert isinstance(built, Guard)
    assert (built.inner.lr, built.inner.target_accuracy, built.inner.clip_norm) == (0.002, 0.4, 0.5)
    assert base["init_args"]["inner"]["init_args"] == {"clip_norm": 0.5}


def test_all_means_every_method_that_has_a_knob():
    names = tunable()
    assert "negative_gradient" in names
    assert "guard" in names
    assert not {"identity", "retrain", "negative_gradient_mls_bench"} & set(names)
    assert set(METHODS) - set(names) == {"identity", "retrain"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("salum", "no method or packaged preset has that name"),
        ("identity", "nothing to tune"),
        ("missing.yaml", "there is no such file"),
    ],
)
def test_what_cannot_be_tuned(name, message):
    with pytest.raises(InputError, match=message):
        find_target(name, "digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 3", "class_path"),
        ("[1", "cannot be read"),
        ("class_path: os.system", "cannot be used"),
        ("class_path: NegativeGradient\ninit_args: {lrr: 3}", "cannot be used"),
        ("class_path: NegativeGradient\ninit_args: {lr: -3}", "lr is -3"),
    ],
)
def test_damaged_files(text, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        find_target(str(file), "digits")


def test_a_search_space_with_an_unknown_setting_is_refused():
    class Wrong(UnlearningMethod):
        search_space: ClassVar = {"speed": Span(1, 3)}

    globals()["Wrong"] = Wrong
    with pytest.raises(InputError, match="speed"):
        make_target("wrong", {"class_path": f"{__name__}.Wrong"}, [])
