import io
import re

import pytest
import torch
from rich.console import Console
from rich.text import Text

from retrace_pl.envs import CandidatePool
from retrace_pl.report import RichSearchProgress
from retrace_pl.report.progress import Bar, StageProgress, _TimeLeft, counted, steps, terminal
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


def test_the_bar_of_a_step_stands_below_that_of_its_stage(pool):
    screen = console()
    with StageProgress("attack", screen) as stage:
        for label in steps(["attack-0", "null-0"]):
            search = RichSearchProgress(label, console=screen)
            search.on_start(100)
            search.on_update(50, pool, {})
            stage.display.refresh()
            search.on_end()
    frames = screen.file.getvalue()
    assert stage.done == stage.total == 2
    for words in ("0/2", "1/2", "50/100", "  attack-0", "  null-0"):
        assert words in frames


def test_steps_without_a_stage_are_just_the_items():
    assert list(steps([1, 2])) == [1, 2]
    counted(3)()


def test_the_time_left_is_that_of_the_whole_stage():
    screen = console()
    with StageProgress("pretrain", screen, total=4) as stage:
        stage.advance()
        task = stage.display.tasks[0]
        task.start_time -= 10
        stage.show(part=0.25)
        shown = _TimeLeft().render(task).plain
    assert shown == "0:22 left", "10 s for 1.25 of 4 steps leave 22 s"


def test_a_stage_ends_its_display_after_an_error():
    screen = console()
    stage = StageProgress("unlearn", screen, total=1)
    with pytest.raises(RuntimeError), stage:
        raise RuntimeError
    assert not stage.display.live.is_started
    with StageProgress("attack", screen):  # another display can be opened
        pass


def test_a_narrow_terminal_shows_the_bar_and_the_time_left(pool):
    screen = Console(file=io.StringIO(), force_terminal=True, width=60)
    bar = RichSearchProgress("matched_retrain-0", console=screen)
    bar.on_start(20480)
    bar._bar._display.tasks[0].start_time -= 10
    bar.on_update(2048, pool, {})
    bar.on_end()
    lines = [line for line in plain(screen).splitlines() if line.strip()]
    assert max(map(len, lines)) <= 60
    assert "matched_retrain-0" in lines[-1]
    assert "2,048/20,480" in lines[-1]
    assert "1:30 left" in lines[-1]


def plain(screen):
    return Text.from_ansi(re.sub(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]|\r", "\n", screen.file.getvalue())).plain


def test_without_a_terminal_there_is_a_line_every_half_minute():
    file = Console(file=io.StringIO(), width=200)
    seconds = iter([0.0, 10.0, 31.0, 31.0, 40.0, 62.0, 62.0])
    bar = Bar("attack-0", 100, file, clock=lambda: next(seconds))
    for queries in (10, 31, 40, 62):
        bar.update(queries, f"{queries}/100", "best 0.5")
    bar.close()
    assert file.file.getvalue().splitlines() == [
        "attack-0: 31/100, best 0.5, 1:09 left",
        "attack-0: 62/100, best 0.5, 0:38 left",
    ]


def test_a_quiet_console_stays_empty(capsys):
    screen = terminal(quiet=True)
    with StageProgress("attack", screen, total=1):
        Bar("attack-0", 10, screen).update(5, "5/10")
        screen.print("something")
    assert capsys.readouterr() == ("", "")


def test_no_color_leaves_no_colours(monkeypatch, pool):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = console()
    bar = RichSearchProgress("attack-0", console=screen)
    bar.on_start(10)
    bar.on_update(5, pool, {})
    bar.on_end()
    assert not re.search(r"\x1b\[(3[0-7]|9[0-7]|38)[;m]", screen.file.getvalue())


def test_lines_in_a_file_are_not_broken(capsys):
    terminal().print("word " * 60)
    assert len(capsys.readouterr().err.splitlines()) == 1
