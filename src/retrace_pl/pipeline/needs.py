"""Which models an audit needs besides f+ and f-, read from its plain settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from retrace_pl.audit import parse_controls
from retrace_pl.pipeline.code import class_paths

SHADOW_USERS = ("attack", "baselines", "inferences")
"""Settings whose classes may learn from an unlearning of the attacker's own."""


def retrained_models(settings: dict[str, Any]) -> int:
    """How many models retrained without the deleted records the controls compare with."""
    audit, controls = settings["audit"], _controls(settings)
    repeats: int = audit["repeats"]
    return max(repeats * ("matched_retrain" in controls), (repeats + 1) * ("never_trained" in controls))


def reseeded_models(settings: dict[str, Any]) -> int:
    """How many models trained on the same records with another seed the null control compares with."""
    repeats: int = settings["audit"]["repeats"]
    return repeats * ("null" in _controls(settings))


def needs_wrong_class(settings: dict[str, Any]) -> bool:
    """Whether a control deletes another class."""
    return "wrong_class" in _controls(settings)


def needs_shadow(settings: dict[str, Any]) -> bool:
    """Whether something learns from an unlearning of the attacker's own: an attack, an inference or the trace."""
    paths = class_paths([settings.get(name) for name in SHADOW_USERS])
    return bool(settings["traces"].get("fit_weights")) or any(
        getattr(_class(path), "needs_shadow", False) for path in paths
    )


def further_models(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the stage that unlearns trains beyond f- and the matched retrain, as part of its key; empty if nothing.

    An audit without these controls has the key that it had before there were any.
    """
    found = {
        "reseeded": reseeded_models(settings),
        "wrong_class": [settings["audit"].get("wrong_class")] if needs_wrong_class(settings) else None,
        "shadow": needs_shadow(settings),
    }
    found = {name: value for name, value in found.items() if value}
    return [found] if found else []


def _controls(settings: dict[str, Any]) -> set[str]:
    return {control.id for control in parse_controls(settings["audit"]["controls"])}


def _class(path: str) -> Any:
    """The class of a dotted path; parsing the settings has imported it."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def judging_apart(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts the settings of the data into those of the records and those that only the evaluation reads.

    Args:
        data: the section `data` with `class_path` and `init_args`, whose class has been imported.

    Returns:
        The settings without the class's `judging_settings`, and these.
    """
    module, _, name = str(data["class_path"]).rpartition(".")
    names = getattr(getattr(import_module(module), name), "judging_settings", ())
    given = dict(data.get("init_args") or {})
    judging = {name: given.pop(name) for name in names if name in given}
    return {**data, "init_args": given}, judging
