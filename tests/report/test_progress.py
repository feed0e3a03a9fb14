import io

import pytest
import torch
from rich.console import Console

from retrace_pl.envs import CandidatePool
from retrace_pl.report import RichSearchProgress
from retrace_pl.searchers import SearchObserver


@pytest.fixture
def pool():
    pool = CandidatePool(2)
    pool.add(torch.zeros(3, 2), torch.tensor([0.25, 0.5, 0.75]))
    return pool


def console():
    return Console(file=io.StringIO(), force_terminal=True, width=140)


def test_shows_queries_best_and_mean(pool):
    screen = console()
    bar = RichSearchProgress("attack [1/3]", console=screen)
    assert isinstance(bar, SearchObserver)
    bar.on_start(100)
    bar.on_update(40, pool, {"score/best": 0.9, "score/top64": 0.8})
    bar.on_end()
    text = screen.file.getvalue()
    for words in ("attack [1/3]", "40/100", "0.900", "0.800"):
        assert words in text


def test_reads_the_pool_when_scalars_are_missing(pool):
    screen = console()
    bar = RichSearchProgress(console=screen)
    bar.on_start(10)
    bar.on_update(3, pool, {})
    bar.on_end()
    bar.on_end()
    assert "0.750" in screen.file.getvalue()
    assert "0.500" in screen.file.getvalue()


def test_quiet_draws_nothing(pool, capsys):
    screen = console()
    bar = RichSearchProgress(quiet=True, console=screen)
    bar.on_start(10)
    bar.on_update(3, pool, {})
    bar.on_end()
    assert screen.file.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_an_empty_pool():
    bar = RichSearchProgress(console=console())
    bar.on_start(10)
    bar.on_update(0, CandidatePool(2), {})
    bar.on_end()
