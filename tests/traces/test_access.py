import pytest

from retrace_pl.errors import AccessError, InputError
from retrace_pl.traces import SIGNALS, Access


@pytest.mark.parametrize(
    ("level", "allowed"),
    [("black", {"prediction"}), ("gray", {"prediction", "loss"}), ("white", {"prediction", "loss", "gradient"})],
)
def test_each_level_allows_exactly_its_signals(level, allowed):
    access = Access(level)
    assert {signal for signal in SIGNALS if access.allows(signal)} == allowed
    assert set(access.signals) == allowed
    for signal in SIGNALS:
        if signal in allowed:
            access.require(signal)
        else:
            with pytest.raises(AccessError, match=f"{signal} signal needs access=.*this audit has access={level}"):
                access.require(signal)


def test_the_error_names_the_level_that_would_do():
    with pytest.raises(AccessError, match="needs access=gray"):
        Access.BLACK.require("loss")
    with pytest.raises(AccessError, match="needs access=white"):
        Access.GRAY.require("gradient")


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="'activations' is unknown"):
        Access.WHITE.allows("activations")
    with pytest.raises(InputError, match="access: 'grey' is not a level; choose one of black, gray, white"):
        Access.parse("grey")
    assert Access.parse("gray") is Access.GRAY
