"""Ranges that a search may use: what is empty or impossible is refused."""

import pytest

from retrace_pl.errors import InputError
from retrace_pl.unlearning import Choice, Span


@pytest.mark.parametrize(("low", "high", "whole"), [(1, 20, True), (1.0, 20, False), (0.1, 0.5, False), (3, 3, True)])
def test_a_range_between_whole_numbers_is_whole(low, high, whole):
    assert Span(low, high).whole is whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((2, 1), "empty"), ((float("nan"), 1.0), "empty"), ((0, 1, True), "above 0"), ((-1.0, 1.0, True), "above 0")],
)
def test_ranges_that_hold_nothing_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        Span(*arguments)


def test_a_linear_range_may_start_at_or_below_zero():
    assert Span(-1.0, 0.0).low == -1.0


def test_a_choice_needs_a_value():
    assert Choice(("a", 1, 0.5, True)).values == ("a", 1, 0.5, True)
    with pytest.raises(InputError, match="at least one value"):
        Choice(())


def test_ranges_are_values():
    assert Span(1, 2) == Span(1, 2)
    assert len({Span(1, 2), Span(1, 2), Choice((1,)), Choice((1,))}) == 2
    with pytest.raises(AttributeError):
        Span(1, 2).low = 0
