import io

import pytest
from rich.console import Console

from retrace_pl.report.findings import (
    fitting_table,
    leakage_table,
    output_console,
    print_arms,
    print_places,
    print_verdict,
    result_alone,
)

VALUES = {
    "name": "Digits [class 3]",
    "budget": {"top_k": 64, "queries": 20480, "repeats": 3},
    "leakage": {
        "excess": {"value": 0.5, "low": 0.25, "high": 0.75, "level": 0.95},
        "avoidable": {"value": 0.0, "low": -0.1, "high": 0.1, "level": 0.95},
        "excess_null": None,
    },
}
COLUMNS = ("sr_oracle", "mse", "cs", "fid_oracle", "diversity")
ROWS = [("attack", ["0.5", "0.1", "0.2", "30", "0.01"]), ("prior", ["0", "0.1", "0.1", "40", "0.02"])]


def shown(width, show):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(console)
    return console.file.getvalue()


def test_the_attack_stands_beside_its_controls_at_one_budget():
    lines = shown(100, lambda console: print_arms(console, VALUES, COLUMNS, ROWS)).splitlines()
    assert lines[:2] == ["Digits [class 3]", "64 candidates, 20,480 queries each, mean of 3 repeats"]
    assert lines[3].split() == ["at", "distribution", "level", *COLUMNS]
    assert lines[4].split() == ["attack", "0.5", "0.1", "0.2", "30", "0.01"]
    assert lines[5].split() == ["prior", "0", "0.1", "0.1", "40", "0.02"]


@pytest.mark.parametrize(("width", "fits"), [(65, 5), (64, 4), (54, 4), (53, 3), (37, 2), (32, 1)])
def test_a_narrow_terminal_shows_the_columns_that_fit(width, fits):
    lines = shown(width, lambda console: print_arms(console, VALUES, COLUMNS, ROWS)).splitlines()
    assert [name for name in COLUMNS if any(name in line for line in lines)] == list(COLUMNS[:fits])
    assert all(len(line) <= width for line in lines[3:])


def test_leakage_has_intervals_and_how_to_read_them():
    lines = shown(60, lambda console: console.print(leakage_table(VALUES))).splitlines()
    assert lines[0].split() == ["leakage", "value", "95%", "interval"]
    assert lines[1].split() == ["Excess", "+0.500", "+0.250", "to", "+0.750", "above", "zero"]
    assert lines[2].split()[-2:] == ["includes", "zero"]
    assert len(lines) == 3


def test_without_leakage_there_is_no_table():
    assert leakage_table({"leakage": {"excess": None}}) is None


def test_the_verdict_is_one_line_and_its_reason_is_no_markup():
    values = {"verdict": "leak", "verdict_reason": "found [bold]more[/bold] than " + "chance " * 20}
    text = shown(60, lambda console: print_verdict(console, values))
    assert text.startswith("verdict: leak - found [bold]more[/bold] than")
    assert len(text.splitlines()) == 1


def test_only_places_that_are_there_are_named(tmp_path):
    assert shown(60, lambda console: print_places(console, tmp_path)) == ""
    folder = tmp_path / "my run"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "report.html").touch()
    lines = shown(60, lambda console: print_places(console, folder)).splitlines()
    assert lines == [
        f"report: {folder / 'report.html'}",
        f"tensorboard: tensorboard --logdir '{folder / 'tensorboard'}'",
    ]


def test_a_file_gets_every_column(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_console().width == 120


def test_what_others_print_stays_out_of_the_json(capsys):
    with result_alone(True):
        print("a user's method")
    with result_alone(False):
        print("a table")
    assert capsys.readouterr() == ("a table\n", "a user's method\n")


@pytest.mark.parametrize(("width", "fits"), [(40, 4), (27, 3), (10, 3)])
def test_columns_that_name_a_row_stay_with_one_figure(width, fits):
    columns, rows = ("rank", "method", "score", "queries"), [(["1", "[scrub]", "0.5", "4,096"], None), (["-"], "dim")]
    table = fitting_table(columns, rows, width, kept=2)
    assert [column.header for column in table.columns] == list(columns[:fits])
    assert "[scrub]" in shown(100, lambda console: console.print(table))
