import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from retrace_pl.arena.aggregate import ONE_CLUSTER, clusters_of, summarise
from retrace_pl.arena.measures import MEASURES, measures_of
from retrace_pl.arena.pareto import pareto_section, tradeoffs
from retrace_pl.arena.ranking import rank_records, ranking_section
from retrace_pl.files import finite

spec = importlib.util.spec_from_file_location("arena_synthetic", Path(__file__).parent / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
CONFIG, record = synthetic.CONFIG, synthetic.record


def board(records, access="black", **config):
    return next(found for found in rank_records(records, {**CONFIG, **config}) if found.access == access)


def over_seeds(method, avoidable, **settings):
    return [record(method, seed, avoidable=value, **settings) for seed, value in enumerate(avoidable)]


def find(found, label):
    return next(entry for entry in found.entries if entry.label == label)


def summary(values, measure="avoidable", level=0.95, **settings):
    cells = [
        record("a", seed, forget_class=name, avoidable=value, **settings) for (seed, name), value in values.items()
    ]
    return summarise(MEASURES[measure], clusters_of(cells, 1), resamples=2000, level=level)


def test_mean_and_interval_of_a_measure_without_own_intervals():
    cells = [record("a", seed, retain=value) for seed, value in enumerate((0.9, 0.93, 0.99))]
    found = summarise(MEASURES["retain_acc"], clusters_of(cells, 1), resamples=2000, level=0.95)
    assert found.value == pytest.approx(0.94)
    assert (found.low, found.high) == (pytest.approx(0.9), pytest.approx(0.99))  # 1/27 of resamples are all one seed
    narrow = summarise(MEASURES["retain_acc"], clusters_of(cells, 1), resamples=2000, level=0.5)
    assert 0.9 < narrow.low < narrow.high < 0.99


def test_cells_own_intervals_widen_that_of_a_leakage():
    equal = summary({(seed, 3): 0.1 for seed in range(3)})
    assert equal.value == pytest.approx(0.1)
    # three equal cells leave their own noise alone: multiplicities (3,0,0), (2,1,0) and (1,1,1) of 27 draws; sd by hand
    sd = 0.04 / 1.96 * math.sqrt((3 * 1 + 18 * 5 / 9 + 6 / 3) / 27)
    assert equal.high - equal.value == pytest.approx(1.96 * sd, rel=0.1)


def test_seeds_and_classes_are_resampled_each_by_itself():
    effect = {0: -0.2, 1: 0.2}
    by_class = summarise(
        MEASURES["retain_acc"],
        clusters_of(
            [record("a", seed, forget_class=c, retain=0.7 + effect[c]) for seed in range(5) for c in effect], 1
        ),
        resamples=2000,
        level=0.95,
    )
    assert by_class.clusters == 10
    assert (by_class.low, by_class.high) == (pytest.approx(0.5), pytest.approx(0.9))  # a class may be drawn twice


def test_one_seed_and_class_has_no_interval_and_says_so():
    found = summary({(0, 3): 0.2})
    assert (found.value, found.low, found.clusters) == (0.2, None, 1)
    assert found.as_dict()["note"] == ONE_CLUSTER
    assert board([record("a"), record("b")]).entries[0].rank_range is None


def test_gaps_are_against_the_reference_of_the_same_cell():
    cells = [record("a", seed, retain=0.9, mia=0.3 if seed else 0.7) for seed in range(2)]
    cells[0].retrained["retain_acc"] = 0.80
    entry = board(cells).entries[0]
    assert entry.value("utility_gap") == pytest.approx((0.80 - 0.90 + 0.98 - 0.90) / 2)
    assert entry.value("mia_gap") == pytest.approx(0.2)  # distances do not cancel


def test_lower_avoidable_leakage_ranks_first_and_overlaps_share_ranks():
    records = over_seeds("low", (0.0, 0.02, 0.01)) + over_seeds("near", (0.02, 0.0, 0.04))
    records += over_seeds("high", (0.3, 0.31, 0.32))
    found = board(records)
    assert [(entry.method, entry.rank, entry.rank_range) for entry in found.entries] == [
        ("low", 1, (1, 2)),
        ("near", 2, (1, 2)),
        ("high", 3, (3, 3)),
    ]


def test_excess_does_not_decide():
    first = over_seeds("little", (0.2, 0.2), retrain=0.1)
    second = over_seeds("much", (0.0, 0.0), retrain=0.8)
    found = board(first + second)
    assert found.entries[0].method == "much"
    assert found.entries[0].value("excess") > found.entries[1].value("excess")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"retain": 0.929}, "retain accuracy is 5.1 points below"),
        ({"forget": 0.11}, "forget accuracy is 11.0 points above"),
        ({"mia": 0.38}, "MIA AUC is 0.120 away"),
        ({"mia": 0.62}, "MIA AUC is 0.120 away"),
        ({"verdict": "invalid"}, "invalid audit in 2 of 2 cells: because it is invalid"),
        ({"retain": float("nan")}, "retain accuracy is no number in 2 of 2 cells"),
    ],
)
def test_the_gate_shows_a_method_without_a_rank(settings, words):
    found = board(over_seeds("good", (0.2, 0.2)) + over_seeds("broken", (-0.5, -0.5), **settings))
    broken = find(found, "broken")
    assert (broken.state, broken.rank, broken.number) == ("gated", None, 2)
    assert any(words in reason for reason in broken.reasons)
    assert find(found, "good").rank == 1


@pytest.mark.parametrize("settings", [{"retain": 0.93}, {"retain": 1.0}, {"forget": 0.1}, {"mia": 0.4}])
def test_the_margins_themselves_are_inside(settings):
    assert board(over_seeds("edge", (0.1, 0.1), **settings)).entries[0].rank == 1


def test_the_forget_margin_may_be_absent():
    config = {"gate": {"retain_margin": 0.05, "mia_margin": 0.1}}
    assert board(over_seeds("remembers", (0.1, 0.1), forget=0.9), **config).entries[0].rank == 1


def test_failed_cells_are_counted_and_cost_the_rank():
    records = [*over_seeds("half", (0.1,)), record("half", 1, error="broke"), record("gone", error="out of memory")]
    found = board(records)
    half, gone = find(found, "half"), find(found, "gone")
    assert (half.state, half.done, half.failed) == ("gated", 1, 1)
    assert half.reasons[0] == "1 of 2 cells failed"
    assert (gone.state, gone.value("excess")) == ("failed", None)
    assert gone.failures == ((synthetic.cell_id("gone"), "out of memory"),)


def test_missing_cells_are_counted_where_they_belong():
    missing = [synthetic.cell_id("a", seed=1), synthetic.cell_id("a", seed=1, access="white"), "ab-x1-seed1-black-ppo"]
    [found] = rank_records([record("a")], CONFIG, missing)
    assert found.entries[0].missing == 1


def test_figures_that_are_missing_or_not_finite_are_no_figures():
    records = over_seeds("a", (0.1, None, 0.3)) + over_seeds("b", (None, float("nan")))
    records[0].attack_result["fid_oracle"] = float("inf")
    found = board(records)
    a, b = find(found, "a"), find(found, "b")
    assert a.value("avoidable") == pytest.approx(0.2)
    assert a.measures["avoidable"].clusters == 2
    assert a.value("fid") == 30.0
    assert b.state == "gated"
    assert "not measured" in b.reasons[0]
    json.dumps(finite(ranking_section([found])), allow_nan=False)


def test_anchors_have_no_rank_and_come_last():
    records = over_seeds("retrain", (0.0, 0.0), class_name="Retrain")
    records += over_seeds("identity", (0.4, 0.4), class_name="Identity", forget=1.0) + over_seeds("a", (0.5, 0.5))
    found = board(records)
    assert [(entry.method, entry.rank, entry.state) for entry in found.entries] == [
        ("a", 1, "ranked"),
        ("retrain", None, "anchor"),
        ("identity", None, "anchor"),
    ]


def test_access_levels_are_averaged_where_all_of_them_finished():
    records = [
        record("a", seed, access, avoidable=0.1 + 0.1 * seed + (access == "white") * 0.2)
        for seed in (0, 1)
        for access in ("black", "white")
    ]
    records.append(record("a", 2, "black", avoidable=0.9))
    every = board(records, "all")
    assert [found.access for found in rank_records(records, CONFIG)] == ["all", "black", "white"]
    assert every.entries[0].value("avoidable") == pytest.approx((0.2 + 0.3) / 2)
    assert every.entries[0].measures["avoidable"].clusters == 2
    assert every.entries[0].done == 5


def test_strengths_and_attacks_are_kept_apart():
    records = [record("a", strength=strength, attack=attack) for strength in (0.5, 1.0) for attack in ("ppo", "cem")]
    found = rank_records(records, CONFIG)
    assert [(one.attack, sorted(entry.label for entry in one.entries)) for one in found] == [
        ("ppo", ["a", "a x0.5"]),
        ("cem", ["a", "a x0.5"]),
    ]


def test_cost_is_a_share_of_retraining():
    records = [
        record("a", seed, access, seconds=2.0 if access == "black" else 0.1)
        for seed in (0, 1)
        for access in ("black", "white")
    ]
    assert board(records).entries[0].value("cost") is None
    records += [record("retrain", seed, class_name="Retrain", seconds=8.0 * (1 + seed)) for seed in (0, 1)]
    white = find(board(records, "white"), "a")
    assert white.value("cost") == pytest.approx((2 / 8 + 2 / 16) / 2)  # the model was made for the black cell
    for found in records:
        found.seconds = {"unlearn": 3.0}
    assert find(board(records), "a").value("cost") == pytest.approx(1)
    assert "whole stage" in measures_of(records)["cost"].definition


def test_the_front_is_what_no_ranked_method_beats():
    records = []
    for name, gap, avoidable in (("x", 0.0, 0.4), ("y", 0.02, 0.1), ("z", 0.02, 0.3), ("w", 0.04, 0.2)):
        records += over_seeds(name, (avoidable, avoidable), retain=0.98 - gap)
    records += over_seeds("broken", (-0.5, -0.5), retain=0.2)
    first = tradeoffs(board(records))[0]
    assert [entry.method for entry in first.front] == ["x", "y"]
    assert len(first.points) == 5
    section = pareto_section(rank_records(records, CONFIG))
    assert [(one["x"], one["y"]) for one in section] == [
        ("utility_gap", "excess"),
        ("forgetting_gap", "excess"),
        ("seconds", "avoidable"),
    ]


def test_the_same_records_give_the_same_ranking():
    rng = np.random.default_rng(1)
    records = [record(f"m{i}", seed, avoidable=float(rng.normal(0, 0.1))) for i in range(4) for seed in range(3)]
    assert ranking_section(rank_records(records, CONFIG)) == ranking_section(rank_records(records[::-1][::-1], CONFIG))
    shuffled = rank_records([records[i] for i in rng.permutation(len(records))], CONFIG)
    assert [entry.as_dict() for entry in shuffled[0].entries] == [
        entry.as_dict() for entry in rank_records(records, CONFIG)[0].entries
    ]
