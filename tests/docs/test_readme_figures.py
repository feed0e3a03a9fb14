"""Every table of README.md says what the files in benchmarks/results say."""

import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def stored(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def rows(first):
    """Cells of the rows of the README's table whose heading begins with a cell."""
    lines = README[README.index(f"\n| {first} |") + 1 :].splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def percent(value):
    return f"{100 * value:.0f} %"


def points(value):
    return f"{round(100 * value):+d}"


AUDITS = {(audit["config"], audit["access"]): audit for audit in stored("audits")["audits"]}


@pytest.mark.parametrize("row", rows("audit"), ids=lambda row: f"{row[0]}-{row[1]}")
def test_audits(row):
    audit = AUDITS[row[0], row[1]]
    arms, excess = audit["arms"], audit["leakage"]["excess"]
    shares = [percent(arms[arm]["sr_oracle"]) for arm in ("attack", "prior", "matched_retrain", "random", "cem")]
    fid = " / ".join(f"{arms[arm]['fid_oracle']:.1f}" for arm in ("attack", "random", "cem"))
    spread = [arms["attack"]["diversity"], arms["cem"]["diversity"], audit["floors"]["deleted_diversity"]]
    interval = f"{points(excess['value'])} [{points(excess['low'])}, {points(excess['high'])}]"
    expected = [*shares, fid, " / ".join(f"{value:.3f}" for value in spread), interval, audit["verdict"]]
    assert row[2:] == expected


def test_every_audit_has_its_row():
    assert {(row[0], row[1]) for row in rows("audit")} == set(AUDITS)
    repeats = {config: AUDITS[config, "black"]["budget"]["repeats"] for config in ("digits", "fashion_mnist")}
    assert f"over {repeats['digits']} or {repeats['fashion_mnist']}\nrepeats" in README
    assert {audit["budget"]["queries"] for audit in AUDITS.values()} == {20_480}


def test_null_pairs_of_the_audits():
    found = [a["arms"]["null"]["sr_oracle"] for a in AUDITS.values() if "null" in a["arms"]]
    low, high = (f"{100 * value:.0f}" for value in (min(found), max(found)))
    assert f"ends at\n{low} to {high} % on digits" in README


SEARCHERS = {"random": "random", "CEM": "cem", "CMA-ES": "cma_es", "SAC": "sac", "PPO (default)": "ppo"}
UNLEARNERS = ("retrain", "negative_gradient", "retain_finetune")


def search_mean(searcher, unlearner, measure):
    cells = [c for c in stored("search")["cells"] if c["data"] == "digits" and c["access"] == "black"]
    found = [c[measure] for c in cells if (c["searcher"], c["unlearner"]) == (searcher, unlearner)]
    assert len(found) == 5
    return mean(found)


@pytest.mark.parametrize("row", rows("searcher"), ids=lambda row: row[0])
def test_searchers(row):
    measures = ("sr_oracle", "fid_oracle", "nearest_mse", "diversity_share")
    for text, measure in zip(row[1:], measures, strict=True):
        shown = [part.strip() for part in text.removesuffix("%").split("/")]
        for part, unlearner in zip(shown, UNLEARNERS, strict=True):
            searcher = SEARCHERS[row[0].partition(" (of")[0]]
            value = search_mean(searcher, unlearner, measure) * (100 if measure == "sr_oracle" else 1)
            digits = len(part.partition(".")[2])
            assert float(part) == pytest.approx(value, abs=0.5001 * 10**-digits), (measure, unlearner)


def test_how_slow_sac_is():
    cells = [c for c in stored("search")["cells"] if c["searcher"] in ("sac", "ppo")]
    sac, ppo = (mean(c["seconds"] for c in cells if c["searcher"] == name) for name in ("sac", "ppo"))
    assert f"SAC (of RLB-MI; {sac / ppo:.0f} times as slow)" in README


def test_how_soon_ppo_overtakes_random_search():
    found = re.search(r"in (\d+ of \d+) pairs", README)[1]
    text = (RESULTS / "search.md").read_text(encoding="utf-8")
    digits = text[text.index("## digits") :]
    assert re.search(r"\(a\) at most a quarter: (\d+ of \d+)", digits)[1] == found


@pytest.mark.parametrize(("row", "signal"), [*zip(rows("score"), ("directional", "gap"), strict=True)], ids=str)
def test_directional(row, signal):
    cells = [
        c
        for c in stored("directional")["cells"]
        if c["signal"] == signal and c["access"] == "black" and c["unlearner"] in UNLEARNERS[:2]
    ]

    def of(searcher, measure):
        return mean(c[measure] for c in cells if c["searcher"] == searcher)

    pairs = {(c["seed"], c["class"]) for c in cells}
    assert str(len(pairs)) in row[0]
    spread = " / ".join(f"{of(searcher, 'diversity'):.3f}" for searcher in ("ppo", "cem"))
    assert row[1:] == [*(percent(of(searcher, "sr_oracle")) for searcher in ("ppo", "cem", "random")), spread]


def test_directional_control_and_policy_off_the_sphere():
    cells = [c for c in stored("directional")["cells"] if c["signal"] == "directional"]
    control = mean(c["sr_oracle"] for c in cells if (c["searcher"], c["unlearner"]) == ("ppo", "retrain"))
    assert f"gives {percent(control)} with the directional score" in README
    off = [c for c in cells if c["searcher"] == "ppo_off_sphere" and c["unlearner"] in UNLEARNERS[:2]]
    found, spread = mean(c["sr_oracle"] for c in off), mean(c["diversity"] for c in off)
    assert f"({spread:.3f}) at {percent(found)}" in README


def test_arena():
    text = (RESULTS / "arena_digits.md").read_text(encoding="utf-8")
    table = text[text.index("## All access levels") :].partition("\n## ")[0]
    found = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 14:
            found[cells[1]] = cells
    shown = rows("rank (range)")
    assert len(shown) == 19
    for rank, method, avoidable, successes, retain, auc in shown:
        cells = found[method.strip("*").partition(" ")[0]]
        assert rank in ("-", cells[0])
        assert avoidable == cells[2].replace(" (", " [").replace(" to ", ", ").replace(")", "]")
        assert successes == " / ".join(cells[4:7])
        assert retain == cells[7].partition(" ")[0]
        assert auc == cells[10].partition(" ")[0]
    ranked = [method for method, cells in found.items() if cells[0][0].isdigit()]
    assert [row[1] for row in shown[:-2]] == ranked
    left_out = re.search(r"\): ((?:\w+, )+\w+)\n\(\[why\]", README)[1].split(", ")
    assert sorted(left_out) == sorted(method for method, cells in found.items() if cells[0] == "not ranked")


def test_arena_on_fashion_mnist():
    text = (RESULTS / "arena_fashion_mnist.md").read_text(encoding="utf-8")
    found = {cells[1]: cells for line in text.splitlines() if len(cells := re.split(r" ?\| ?", line.strip("|"))) == 14}
    found = {name.strip(): [cell.strip() for cell in cells] for name, cells in found.items()}
    methods = [found[name] for name in ("random_label", "bad_teacher", "delete", "perturbed_distillation")]
    shares = sorted(int(cells[4].rstrip("%")) for cells in methods)
    prior, retrain = methods[0][5], methods[0][6]
    assert (
        f"recognised in {prior.replace('%', ' %')} of the cases, the matched retrain in {retrain.replace('%', ' %')}"
        in README
    )
    assert f"lie at {shares[0]} % to {shares[-1]} %" in README


@pytest.mark.parametrize("row", rows("rule"), ids=lambda row: row[0])
def test_mls_bench(row):
    rule = row[0].strip("*").partition(" ")[0]
    cells = [c for c in stored("mls_bench")["cells"] if c["rule"] == rule and c["seed"] in range(3, 8)]
    assert len(cells) == 5
    for text, measure in zip(row[1:], ("retain_acc", "forget_acc", "forget_mia_auc", "two_sided_score"), strict=True):
        values = [c[measure] for c in cells]
        expected = f"{mean(values):.3f} ± {stdev(values):.3f}"
        assert text == expected.removesuffix(" ± 0.000"), measure
