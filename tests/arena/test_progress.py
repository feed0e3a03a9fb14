import io
from types import SimpleNamespace

from rich.console import Console

from retrace_pl.arena import progress
from retrace_pl.arena.progress import ArenaProgress


def cell(name, error=None):
    return SimpleNamespace(id=name, done=error is None, error=error)


def test_cells_done_failed_and_running_are_shown(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=140, highlight=False)
    monkeypatch.setattr(progress, "terminal", lambda quiet: screen)
    with ArenaProgress(5, 1, quiet=False) as shown:
        for name in ("scrub", "salun", "retrain"):
            shown.started(cell(name))
        shown.finished(cell("scrub", "loss is [nan]"))
        shown.finished(cell("salun"))
    text = screen.file.getvalue()
    assert "failed\x1b[0m scrub: loss is [nan]" in text
    assert "3/5" in text
    assert "1 failed; retrain" in text


def test_quiet_shows_nothing(capsys):
    with ArenaProgress(2, 0, quiet=True) as shown:
        shown.started(cell("scrub"))
        shown.finished(cell("scrub", "broken"))
    assert capsys.readouterr() == ("", "")


def test_a_file_gets_the_reasons_and_no_bar(capsys):
    with ArenaProgress(2, 0, quiet=False) as shown:
        shown.finished(cell("scrub", "broken"))
        shown.finished(cell("salun"))
    assert capsys.readouterr() == ("", "failed scrub: broken\n")
