import importlib.util
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from retrace_pl.arena.ranking import rank_records
from retrace_pl.arena.results import write_results
from retrace_pl.arena.summary import print_ranking

spec = importlib.util.spec_from_file_location("arena_synthetic", Path(__file__).parent / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
CONFIG, record, cell_id = {**synthetic.CONFIG, "bootstrap_samples": 100}, synthetic.record, synthetic.cell_id

COMMAND = "retrace arena --config mine.yaml --jobs 2"
EVIL = "<script>alert('x')</script>\"|`[a](b)"


class Page(HTMLParser):
    """What a page holds: every start tag, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def evil():
    found = record(EVIL, forget_class=EVIL, attack=EVIL, class_name=EVIL, verdict=EVIL)
    found.id, found.run = "evil", "javascript:alert(1)"
    failed = record("failing", attack=EVIL, error=EVIL)
    return found, failed


def pictures(count=8):
    return np.random.default_rng(0).random((count, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of an arena with ranked, gated, failed and missing cells, anchors, one run folder and one report."""
    folder = tmp_path_factory.mktemp("arena")
    records = [
        record(name, seed, access) for name in ("good", "fair") for seed in (0, 1) for access in ("black", "white")
    ]
    records += [record("broken", seed, access, retain=0.4) for seed in (0, 1) for access in ("black", "white")]
    records += [record("retrain", class_name="Retrain", avoidable=0.0), record("gone", error="out of memory")]
    for found in records:
        if found.method == "good" and found.access == "white":
            run = folder / found.run
            run.mkdir(parents=True)
            (run / "metrics.json").write_text(json.dumps({"schema": 1}))
            arms = ("attack", "prior", "matched_retrain")
            parts = ("distribution", "nearest")
            save_file({f"{arm}.{part}": pictures() for arm in arms for part in parts}, run / "evaluation.safetensors")
    (folder / cell_run("good")).mkdir(parents=True)
    (folder / cell_run("good") / "report.html").write_text("")
    files = write_results(folder, CONFIG, records, [cell_id("fair", seed=2), cell_id("late", seed=2)], COMMAND)
    return folder, files


def cell_run(method, **where):
    return f"cells/{cell_id(method, **where)}/run"


@pytest.fixture(scope="module")
def page(written):
    return Page((written[0] / "arena.html").read_text())


def test_every_file_is_written(written):
    folder, files = written
    assert [path.relative_to(folder).as_posix() for path in files] == [
        "arena.json",
        "arena.html",
        "arena.md",
        "tensorboard",
    ]
    assert all(path.exists() for path in files)


def test_the_json_holds_ranking_and_fronts(written):
    stored = json.loads((written[0] / "arena.json").read_text())
    boards = stored["ranking"]["boards"]
    assert [board["access"] for board in boards] == ["all", "black", "white"]
    first = boards[0]["entries"][0]
    assert (first["method"], first["rank"], first["rank_range"]) == ("fair", 1, [1, 2])
    assert first["measures"]["avoidable"]["value"] == pytest.approx(0.1)
    assert {point["method"] for point in stored["pareto"][0]["front"]} == {"good", "fair"}
    assert stored["cells"]
    assert stored["missing"]


def test_nothing_comes_from_outside_and_nothing_runs(page, written):
    assert page.all("script") == []
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(link["href"].startswith(("#", "./cells/")) for link in page.all("a"))
    assert not re.search(r"url\(|@import", (written[0] / "arena.html").read_text())


def test_every_picture_has_a_text_and_every_link_a_goal(page):
    assert all(image.get("alt") for image in page.all("img"))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= ids


def test_the_page_tells_what_was_left_out_and_why(page):
    assert "broken : retain accuracy is 58.0 points below the retrained model's" in page.text
    assert "14 cells finished" not in page.text
    assert "13 cells finished, 1 failed, 2 not run." in page.text
    assert f"{cell_id('gone')} : out of memory" in page.text
    assert cell_id("late", seed=2) in page.text
    assert "2 of 3 (1 not run)" in page.text
    assert "reference: retrained without the deleted data" in page.text
    assert "retain accuracy more than 5 points below" in page.text


def test_the_page_holds_the_command_and_how_to_look_at_a_cell(written, page):
    assert "retrace arena --config mine.yaml --jobs 2" in page.text
    assert "retrace report --config RUN/config.yaml --output RUN makes" in page.text
    assert json.loads((written[0] / "arena.json").read_text())["command"] == COMMAND


def test_a_cell_links_to_its_report_or_folder(page, written):
    links = {link["href"] for link in page.all("a")}
    assert f"./{cell_run('good')}/report.html" in links
    assert f"./{cell_run('good', access='white')}" in links
    assert not any("fair" in link for link in links)  # its folder is not there


def test_the_gallery_shows_controls_candidates_and_nearest_records(page):
    shown = [image["alt"] for image in page.all("img")]
    for title in ("Prior only", "Matched retrain", "good"):
        assert sum(alt.startswith(f"{title}, candidate") for alt in shown) == 6
        assert sum(alt.endswith(f"of {title}") for alt in shown) == 6
    assert "its run folder is not here" in page.text
    assert "success 70%, prior only 10%, matched retrain 60%" in page.text


def test_a_damaged_run_folder_is_told(tmp_path):
    found = record("a")
    (tmp_path / found.run).mkdir(parents=True)
    (tmp_path / found.run / "metrics.json").write_text("{")
    write_results(tmp_path, CONFIG, [found])
    assert "a file of its run folder cannot be read" in Page((tmp_path / "arena.html").read_text()).text


def test_names_are_shown_as_they_are_and_mean_nothing(tmp_path):
    write_results(tmp_path, {**CONFIG, "name": EVIL, "audit": EVIL}, list(evil()), [EVIL])
    page = Page((tmp_path / "arena.html").read_text())
    assert page.all("script") == []
    assert page.text.count(EVIL) > 5
    assert not any("javascript" in str(link) for link in page.all("a"))
    lines = (tmp_path / "arena.md").read_text().splitlines()
    assert not any("<script" in line.replace("\\<", "") for line in lines)
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    write_results(tmp_path, CONFIG, [record("a"), record("b", avoidable=0.2)])
    text = Page((tmp_path / "arena.html").read_text()).text
    assert "too few for intervals" in text
    assert "ranks 1" not in text
    stored = json.loads((tmp_path / "arena.json").read_text())
    assert stored["ranking"]["boards"][0]["entries"][0]["measures"]["excess"]["note"].startswith("one seed")


@pytest.mark.parametrize(
    "records", [[], [record("gone", error="broke")], [record("odd", avoidable=None, retain=float("nan"))]]
)
def test_an_arena_without_figures_has_a_page(records, tmp_path):
    write_results(tmp_path, CONFIG, records, [cell_id("late")])
    text = Page((tmp_path / "arena.html").read_text()).text
    assert ("No cell has run yet" if not records else "No method passes the gate") in text
    assert "nan" not in text.lower().split()


def test_the_same_records_give_the_same_page(tmp_path):
    records = [record("a", seed) for seed in (0, 1)]
    texts = []
    for _ in range(2):
        write_results(tmp_path, CONFIG, records)
        texts.append([(tmp_path / name).read_bytes() for name in ("arena.json", "arena.html", "arena.md")])
    assert texts[0] == texts[1]


def test_markdown_has_a_row_for_every_method(written):
    lines = (written[0] / "arena.md").read_text().splitlines()
    first = lines[lines.index("## All access levels, attack ppo") + 2 :]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first[: first.index("")]]
    assert [row[:2] for row in rows[2:]] == [
        ["1 (1\u20132)", "fair"],
        ["2 (1\u20132)", "good"],
        ["not ranked", "broken"],
        ["failed", "gone"],
        ["anchor", "retrain"],
    ]
    assert rows[2][4:8] == ["70%", "10%", "60%", "97% (98%)"]
    assert f"- {cell_id('gone')}: out of memory" in lines


def test_the_terminal_table_shows_every_method():
    records = [record("[red]good", seed) for seed in (0, 1)]
    records += [record("broken", retain=0.4), record("gone", error="broke")]
    stream = io.StringIO()
    print_ranking(Console(file=stream, width=120), rank_records(records, CONFIG))
    shown = stream.getvalue()
    assert re.search(r"^1 +\[red\]good +\+0\.100 .* 2/2 *$", shown, re.MULTILINE)
    assert re.search(r"^none +broken .* 1/1 *$", shown, re.MULTILINE)
    assert re.search(r"^failed +gone .* 0/1 *$", shown, re.MULTILINE)
    assert "not ranked: broken: retain accuracy is 58.0 points below" in shown
