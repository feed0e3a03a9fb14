import pytest

from retrace_pl.audit import CONTROLS, Control, ControlRegistry, get_control, parse_controls
from retrace_pl.errors import InputError

IDS = ["prior", "matched_retrain", "identity", "null", "never_trained", "wrong_class", "holdout"]


def test_the_controls_are_there_and_explain_themselves():
    assert list(CONTROLS) == IDS
    for control in CONTROLS.values():
        assert control.title
        assert control.isolates
        assert control.summary.endswith(".")
        assert control.searched == (control.pair is not None)
        assert control.pair is not None or control.uses


def test_pairs_name_the_models():
    assert get_control("identity").pair == ("original", "original")
    assert get_control("matched-retrain").pair == ("original", "retrained")
    assert get_control("null").pair == ("original", "reseeded")
    assert "original" not in get_control("never-trained").pair
    assert get_control(None) is get_control("null"), "YAML reads the id as nothing"
    assert get_control("prior").pair is None


def test_unknown_names_say_what_there_is():
    with pytest.raises(InputError, match="did you mean 'identity'"):
        get_control("identiy")
    with pytest.raises(InputError, match=", ".join(IDS)):
        parse_controls(["xyz"])


def test_parse_keeps_registry_order_drops_repeats_and_knows_all():
    assert [control.id for control in parse_controls(["holdout", "prior", "holdout"])] == ["prior", "holdout"]
    assert [control.id for control in parse_controls(["all"])] == list(CONTROLS)
    assert parse_controls([]) == ()


def test_a_bare_string_is_refused():
    with pytest.raises(InputError, match="must be a list"):
        parse_controls("prior")


def test_registering_more_controls():
    registry = ControlRegistry(CONTROLS.values())
    own = Control("older", "Older", "drift", "Another day.", "original", "older", searched=True)
    registry.register(own)
    assert parse_controls(["older"], registry) == (own,)
    assert "older" not in CONTROLS
    with pytest.raises(InputError, match="registered already"):
        registry.register(own)
