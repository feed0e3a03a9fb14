"""What is tuned: a method's class, its fixed settings, its knobs with their ranges, and where the search starts."""

from __future__ import annotations

import copy
import math
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

import retrace_pl.unlearning as zoo
from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import config_folders, one_line, read_mapping
from retrace_pl.unlearning import METHODS, Choice, Span, UnlearningMethod

Value = str | int | float | bool
Knobs = dict[str, Value]
Space = Mapping[str, Span | Choice]

BENCHMARK_SUFFIX = "_mls_bench"
"""Presets with this ending reproduce a benchmark's settings, so that tuning all methods leaves them alone."""


@dataclass(frozen=True)
class Target:
    """A method to tune.

    Args:
        name: The preset's name, which its file is called after.
        class_path: The class, as in a preset file.
        init_args: The settings that the search starts from; those that are no knob stay as they are.
        space: The knobs and their ranges; `inner.lr` is the knob `lr` of the method in the setting `inner`.
        starts: Knob values that are tried before the sampler is asked.
    """

    name: str
    class_path: str
    init_args: dict[str, Any]
    space: Space
    starts: list[Knobs] = field(default_factory=list)

    def settings(self, knobs: Mapping[str, Value]) -> dict[str, Any]:
        """The method in class_path/init_args form.

        Args:
            knobs: Values of some or all knobs.
        """
        init_args = copy.deepcopy(self.init_args)
        for knob, value in knobs.items():
            *outer, last = knob.split(".")
            place = init_args
            for name in outer:
                place = place.setdefault(name, {}).setdefault("init_args", {})
            place[last] = value
        return {"class_path": self.class_path, **({"init_args": init_args} if init_args else {})}

    def limited(self, max_epochs: int) -> Target:
        """The same target with every number of epochs, searched or started from, capped.

        Where the whole range lies above the limit, it becomes that from 1 to the limit.

        Args:
            max_epochs: Largest number of epochs, at least 1.
        """
        space = dict(self.space)
        for knob, span in self.space.items():
            if isinstance(span, Span) and knob.rpartition(".")[2].endswith("epochs") and span.high > max_epochs:
                space[knob] = Span(span.low if span.low < max_epochs else 1, max_epochs)
        capped_knobs = {knob for knob in space if space[knob] != self.space[knob]}
        starts: list[Knobs] = []
        for start in self.starts:
            near = within({knob: value for knob, value in start.items() if knob in capped_knobs}, space)
            if start | near not in starts:
                starts.append(start | near)
        return replace(self, space=space, starts=starts)

    def build(self, knobs: Mapping[str, Value]) -> UnlearningMethod:
        """Builds the method.

        Raises:
            InputError: A value is out of range.
        """
        return build_method(self.settings(knobs), self.name)


def build_method(settings: Mapping[str, Any], name: str) -> UnlearningMethod:
    """Builds a method from its class_path/init_args form.

    Args:
        settings: Content of a preset file.
        name: What error messages call it.

    Raises:
        InputError: There is no such class or setting, or a value is out of range.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(UnlearningMethod, "unlearning")
    try:
        built = parser.instantiate(parser.parse_object({"unlearning": copy.deepcopy(dict(settings))}))
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"--method {name}: its settings cannot be used: {one_line(error)}") from error
    method: UnlearningMethod = built.unlearning
    return method


def find_target(name: str, setting: str, start_from: Sequence[str] = ()) -> Target:
    """Finds what `--method` names.

    Args:
        name: A method of the zoo (`salun`), a packaged preset (`random_label_redrawn`), or a preset file of one's own.
        setting: Name of the data and architecture, such as `digits`: the folder of tuned presets in
            `configs/unlearning`. A preset that is there already gives the fixed settings and the last start.
        start_from: Names of other such settings, whose presets of this method are starts too, where there are any.

    Returns:
        The target; its first start are the published settings, which a file of one's own is taken for.

    Raises:
        InputError: Nothing has that name, or it has no knob.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"--method {name}: there is no such file")
        return make_target(path.stem, read_preset(path), [])
    known = preset_files("")
    if name not in known:
        choices = ", ".join(sorted({*METHODS, *known}))
        raise InputError(f"--method {name}: no method or packaged preset has that name; choose all or one of {choices}")
    for other in start_from:
        if not preset_files(other):
            raise InputError(f"--start-from {other}: no packaged presets of that name; choose digits or fashion_mnist")
    found = [files[name] for files in map(preset_files, ("", *start_from, setting)) if name in files]
    *earlier, base = [read_preset(path) for path in found]
    return make_target(name, base, earlier)


def make_target(name: str, base: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> Target:
    """Puts a target together.

    Args:
        name: The preset's name.
        base: The settings to start from, in class_path/init_args form; the last start.
        earlier: Other settings whose knob values are tried before those of `base`.

    Returns:
        The target; ranges are widened where a start lies outside.

    Raises:
        InputError: The method has no knob, or cannot be built.
    """
    method = build_method(base, name)
    space = knobs_of(method)
    if not space:
        raise InputError(f"--method {name}: {method.name} has nothing to tune in an audit")
    starts: list[Knobs] = []
    for settings in (*earlier, base):
        values = knob_values(build_method(settings, name), space)
        if values not in starts:
            starts.append(values)
    kind = type(method).__name__
    class_path = f"{zoo.__name__}.{kind}" if getattr(zoo, kind, None) is type(method) else str(base["class_path"])
    return Target(name, class_path, dict(base.get("init_args", {})), widened(space, starts), starts)


def knobs_of(method: UnlearningMethod) -> dict[str, Span | Choice]:
    """The knobs of a method, and of the method it wraps (`inner`) where it does not name those itself."""
    if method.from_scratch:  # an audit retrains with the pretraining recipe, whatever the settings
        return {}
    space = dict(method.search_space)
    inner = getattr(method, "inner", None)
    if isinstance(inner, UnlearningMethod) and not any(knob.startswith("inner.") for knob in space):
        space |= {f"inner.{knob}": span for knob, span in knobs_of(inner).items() if knob not in space}
    return space


def knob_values(method: UnlearningMethod, space: Space) -> Knobs:
    """What a method's knobs are set to; knobs that are None (left to the method) are missing.

    Raises:
        InputError: The method keeps no attribute of a knob's name.
    """
    values: Knobs = {}
    for knob in space:
        owner: Any = method
        *outer, last = knob.split(".")
        for name in outer:
            owner = getattr(owner, name)
        last = "optimizer_name" if last == "optimizer" else last
        if not hasattr(owner, last):
            raise InputError(f"{type(owner).__name__}.search_space names {knob}, which is no setting of it; correct it")
        value = getattr(owner, last)
        if value is not None:
            values[knob] = value
    return values


def widened(space: Space, starts: list[Knobs]) -> dict[str, Span | Choice]:
    """The space with every range widened to hold the starts, because published settings must be among the trials."""
    wide: dict[str, Span | Choice] = {}
    for knob, span in space.items():
        values = [start[knob] for start in starts if knob in start]
        if isinstance(span, Choice):
            wide[knob] = Choice((*span.values, *dict.fromkeys(v for v in values if v not in span.values)))
            continue
        numbers = [float(v) for v in values if math.isfinite(float(v)) and (float(v) > 0 or not span.log)]
        if span.whole:
            wide[knob] = Span(min([span.low, *map(int, numbers)]), max([span.high, *map(int, numbers)]), span.log)
        else:
            wide[knob] = Span(float(min([span.low, *numbers])), float(max([span.high, *numbers])), span.log)
    return wide


def within(start: Knobs, space: Space) -> Knobs:
    """The nearest values that the ranges hold, which is what the sampler is told: 0 lies in no logarithmic range."""
    near: Knobs = {}
    for knob, value in start.items():
        span = space[knob]
        near[knob] = value if isinstance(span, Choice) else min(max(type(span.low)(value), span.low), span.high)
    return near


def preset_files(setting: str) -> dict[str, Path]:
    """The packaged presets of a setting by name; with "" the published settings of the zoo."""
    files: dict[str, Path] = {}
    for folder in reversed(config_folders()):
        files |= {file.stem: file for file in sorted((folder / "unlearning" / setting).glob("*.yaml"))}
    return files


def read_preset(path: Path) -> dict[str, Any]:
    """Reads a preset file.

    Raises:
        InputError: The file is no YAML with a class_path.
    """
    settings = read_mapping(path, "--method")
    if not isinstance(settings.get("class_path"), str):
        raise InputError(f"{path} is no preset: it needs class_path, and init_args where settings differ from defaults")
    return settings


def tunable() -> list[str]:
    """Names of everything that `--method all` tunes: the packaged methods and presets that have a knob."""
    names = [*METHODS, *(name for name in sorted(preset_files("")) if name not in METHODS)]
    return [name for name in names if not name.endswith(BENCHMARK_SUFFIX) and _has_knobs(name)]


def _has_knobs(name: str) -> bool:
    path = preset_files("").get(name)
    return path is not None and bool(knobs_of(build_method(read_preset(path), name)))
