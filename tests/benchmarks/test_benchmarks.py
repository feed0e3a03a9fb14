import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.models import DCGAN, SmallCNN

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return run


@pytest.fixture
def untrained(load):
    setting = load("_digits_setting")
    torch.manual_seed(0)
    generator = DCGAN((1, 16, 16), latent_dim=16, width=8).eval().requires_grad_(False)
    classifiers = [SmallCNN(1, 10, width=4).eval() for _ in range(3)]
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return setting.Setting(*classifiers, generator, images[:30], images[30:], {})


@pytest.fixture
def models(load, untrained):
    search = load("search")
    unlearned = {"retrain": untrained.unlearned}
    return search, search.Models(
        0,
        3,
        untrained.original,
        unlearned,
        untrained.evaluator,
        untrained.generator,
        untrained.public,
        untrained.deleted,
        {},
    )


def test_a_cell_of_the_search_table(models):
    search, setting = models
    cell, again = (
        search.measure(setting, setting.scorer("retrain", "white"), "random", queries=512, top_k=16) for _ in range(2)
    )
    assert set(cell) == {*search.COLUMNS, "curve"}
    assert cell["curve"][-1] == [512, pytest.approx(cell["score_top64"], abs=1e-5)]
    assert cell["diversity_share"] == pytest.approx(cell["diversity"] / search.spread(setting.deleted))
    assert {**cell, "seconds": 0} == {**again, "seconds": 0}


def cell_of(search, searcher, seed=0, curve=(), **values):
    same = {"data": "digits", "class": 3, "seed": seed, "unlearner": "retrain", "access": "black", "tail": "open"}
    measured = {column: 1.0 for column in search.COLUMNS} | values
    return same | {"queries": 100, "searcher": searcher, "curve": [list(point) for point in curve]} | measured


def test_the_search_table_averages_over_seeds(load):
    search = load("search")
    cells = [cell_of(search, "random", seed, score_top64=0.5 + seed, nearest_mse=0.02) for seed in range(2)]
    assert "| digits | retrain | random | 2 | 1.000 | 1.000 | 0.0200 | 1.0 | 1.0000 | 1.00 | 1.0 |" in search.table(
        cells
    )


def test_the_goals_of_the_search_by_hand(load):
    search = load("search")
    cells = [
        cell_of(search, "random", score_top64=0.6, nearest_mse=0.020, fid_oracle=3.0),
        cell_of(search, "cem", nearest_mse=0.025, fid_oracle=20.0),
        cell_of(
            search,
            "ppo",
            curve=[(10, 0.2), (20, 0.59), (30, 0.61), (100, 0.7)],
            nearest_mse=0.010,
            fid_oracle=6.0,
            diversity_share=0.4,
        ),
        cell_of(search, "ppo", seed=1),  # nothing to compare with
    ]
    (row,) = search.goals(cells)
    assert (row["share"], row["mse"], row["fid"]) == (0.3, 0.5, 2.0)
    assert (row["best_mse"], row["best_fid"], row["diversity_share"]) == ("random", "random", 0.4)
    shown = search.goals_table([row, row | {"share": None, "fid": 0.9, "diversity_share": 0.5}])
    assert "(a) at most a quarter: 0 of 2; (b) MSE no worse: 2 of 2; (b) fid_oracle no worse: 1 of 2" in shown
    assert "(c) half the diversity: 1 of 2" in shown
    assert "| never |" in shown


def test_the_command_continues_what_its_json_holds(models, monkeypatch, tmp_path, capsys):
    search, setting = models
    monkeypatch.setattr(search, "build", lambda *_: setting)
    file = tmp_path / "new" / "search.json"
    run = ["search.py", "--quick", "--seeds", "1", "--queries", "512", "--json", str(file), "--searchers", "random"]
    monkeypatch.setattr(sys, "argv", run)
    search.main()
    first = json.loads(file.read_text())
    monkeypatch.setattr(sys, "argv", [*run, "cem"])
    search.main()
    result = json.loads(file.read_text())
    assert [cell["searcher"] for cell in result["cells"]] == ["random", "cem"]
    assert result["cells"][0] == first["cells"][0]  # its seconds too: it was not run again
    assert "| digits | retrain | cem | 1 |" in capsys.readouterr().out


def test_the_searchers_of_the_benchmark_are_the_packaged_presets(load):
    search = load("search")
    assert {name: type(make()).name for name, (make, _) in search.SEARCHERS.items()} == {
        "random": "random",
        "cem": "cem",
        "cma_es": "cma_es",
        "sac": "sb3",
        "ppo": "sb3",
        "ppo_tau0": "sb3",
    }
    assert search.SEARCHERS["sac"][0]().settings["learning_rate"] == 5e-4


def test_the_score_keeps_the_order_of_what_no_public_image_reaches(untrained):
    # A narrow scale: that of the five images with the smallest differences.
    images = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    order = untrained.scorer("black").deltas(images).prediction.argsort()
    untrained.public = images[order[:5]]
    opened, clipped = (untrained.scorer("black", tail)(images[order]).score for tail in ("open", "clip"))
    assert (clipped[5:] == 1).all()
    assert (opened[5:].diff() >= 0).all()
    assert opened[-1] > opened[5]


def test_the_speed_ratios(load):
    speed = load("speed")
    ratios = speed.loop("digits", "black", queries=512, repeats=1)
    assert all(ratios[name] > 0 for name in ("loop", "loop_channels_last", "memory_format", "queries_per_second"))
    assert speed.dummy("digits", "white", steps=1, repeats=1, num_envs=16) > 1


def test_every_way_to_run_the_models_is_timed_and_both_passes_agree(load):
    speed, setting = load("speed"), load("_speed_setting")
    found = speed.ways("digits", queries=64, repeats=1, names=["channels_last", "bfloat16"])
    assert list(found) == ["channels_last", "bfloat16", "torch.func"]
    assert min(found.values()) > 0
    separate, joint = setting.together("digits")
    images = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(joint(images), torch.stack(separate(images)), rtol=1e-4, atol=1e-5)


def test_the_profile_adds_up(load):
    setting = load("_speed_setting")
    shares = setting.profile(*setting.build("digits", "white"), queries=512, num_envs=256)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(share >= 0 for share in shares.values())
    assert shares["policy: updates"] > 0.05
    assert shares["f-"] > 0.05


def test_time_to_the_same_score(load, untrained, monkeypatch):
    speed = load("speed")
    monkeypatch.setattr(speed, "digits", lambda seed, cache: untrained)
    row = speed.same_score(0, FOLDER, queries=300)
    assert row["same_score"] == pytest.approx(row["sac_seconds"] / row["ppo_seconds"])
    assert row["ppo_queries"] >= speed.NUM_ENVS
    assert row["per_query"] > 1


def test_a_cell_of_the_arena_table(load):
    arena = load("arena")
    arm = {name: 0.5 for name in (*arena.FIGURES, "ssim")} | {"instance": {}, "intervals": {}}
    leak = {"value": 0.4, "low": 0.3, "high": 0.5, "level": 0.95, "metric": "sr_oracle"}
    cell = dict.fromkeys(arena.PLAIN, 1) | {"attack_result": arm, "prior": arm, "matched_retrain": arm}
    done = arena.compact(cell | {"leakage": {"excess": leak, "record": None}})
    assert done["attack_result"] == dict.fromkeys(arena.FIGURES, 0.5)
    assert done["leakage"] == {"excess": [0.4, 0.3, 0.5], "record": None}
    failed = arena.compact(cell | {"attack_result": None, "prior": None, "matched_retrain": None, "leakage": None})
    assert failed["prior"] is None
    assert failed["leakage"] == {}
