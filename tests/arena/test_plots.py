import importlib.util
import warnings
from base64 import b64decode
from pathlib import Path

import pytest

from retrace_pl.arena.figures import access_picture, leakage_picture, pareto_pictures
from retrace_pl.arena.labels import LONGEST_NAME, plain_name
from retrace_pl.arena.pareto import tradeoffs
from retrace_pl.arena.plots import edge_of, pareto_figure
from retrace_pl.arena.ranking import rank_records
from retrace_pl.report.palette import DARK, LIGHT

spec = importlib.util.spec_from_file_location("arena_synthetic", Path(__file__).parent / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
CONFIG, record = synthetic.CONFIG, synthetic.record


def boards(records):
    return rank_records(records, {**CONFIG, "bootstrap_samples": 50})


def many(methods=20):
    return [
        record(f"method_{i}", seed, avoidable=0.02 * i + 0.01 * seed, retain=0.97 - 0.001 * i)
        for i in range(methods)
        for seed in (0, 1)
    ]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def svg(uri):
    return b64decode(uri.partition(",")[2]).decode()


def test_both_colour_schemes_and_a_text_for_every_figure():
    records = [record("a", seed, access) for seed in (0, 1) for access in ("black", "white")]
    every, *_ = found = boards(records)
    pictures = [leakage_picture(every), access_picture(every, found), *pareto_pictures(every)]
    assert len(pictures) == 5
    for picture in pictures:
        assert LIGHT.ink in svg(picture.light)
        assert LIGHT.ink not in svg(picture.dark)
        assert DARK.ink in svg(picture.dark)
    assert "a +0.100 and +0.600" in pictures[0].alt
    assert "a black-box +0.100, white-box +0.100" in pictures[1].alt


def test_names_on_the_front_and_numbers_elsewhere_never_overlap():
    records = many()
    records += [record("retrain", seed, class_name="Retrain", avoidable=0.0, retain=0.98) for seed in (0, 1)]
    trade = tradeoffs(boards(records)[0])[0]
    figure = pareto_figure(trade, LIGHT, ("x", "y"))
    shown = texts(figure)
    assert "method_0" in shown
    assert "retrain" in shown
    assert all(text in ("method_0", "retrain") or text.isdigit() for text in shown)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) > 10
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_methods_that_coincide_are_not_all_labelled():
    same = [record(f"m{i}", seed) for i in range(30) for seed in (0, 1)]
    same += [record("far", seed, avoidable=0.2, retain=0.95) for seed in (0, 1)]
    trade = tradeoffs(boards(same)[0])[0]
    assert len(trade.front) == 30  # none of them is better than another
    figure = pareto_figure(trade, LIGHT, ("x", "y"))
    assert len(texts(figure)) <= 31


def test_a_broken_method_does_not_squeeze_the_others():
    records = [*many(), record("broken", 0, retain=0.1), record("broken", 1, retain=0.1)]
    trade = tradeoffs(boards(records)[0])[0]
    assert 0.03 < edge_of(trade) < 0.1
    figure = pareto_figure(trade, LIGHT, ("x", "y"))
    assert figure.axes[0].get_xlim()[1] < 0.1
    picture = pareto_pictures(boards(records)[0])[0]
    assert "in truth further out: broken (0.88)" in picture.caption
    assert edge_of(tradeoffs(boards(many())[0])[0]) is None


@pytest.mark.parametrize(
    "records",
    [
        [record("alone")],
        [record("gone", error="broke")],
        [record("odd", avoidable=None), record("nan", avoidable=float("nan"))],
        [record("a", strength=strength, seconds=10.0**i) for i, strength in enumerate((0.5, 1.0, 2.0))],
        [record("a", seconds=0.0), record("b", seconds=100.0), record("c", seconds=1.0)],
        [record("broken", retain=0.0), record("leak_only", mia=0.0)],
    ],
    ids=["one method", "failed", "no leakage", "strengths", "no time", "none ranked"],
)
def test_every_arena_can_be_drawn(records):
    [board] = boards(records)
    picture = leakage_picture(board)
    assert (picture is None) == (not board.of("ranked", "gated", "anchor"))
    assert len(pareto_pictures(board)) in (0, 3)


def test_strengths_of_a_method_are_connected_in_order():
    records = [record("a", strength=s, avoidable=0.1 * s, retain=0.98 - 0.01 * s) for s in (2.0, 0.5, 1.0)]
    axes = pareto_figure(tradeoffs(boards(records)[0])[0], LIGHT, ("x", "y")).axes[0]
    assert pytest.approx(list(axes.lines[0].get_xdata())) == [0.005, 0.01, 0.02]


def test_names_cannot_break_a_figure():
    name = "$\\frac{<b> \n ünlearn 漢字 " + "x" * 90
    assert plain_name(name).startswith("$\\frac{<b> ünlearn ??")
    assert len(plain_name(name)) == LONGEST_NAME
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [board] = boards([record(name), record("other", avoidable=0.3)])
        leakage_picture(board)
        pareto_pictures(board)
