import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import retrace_pl.report
from retrace_pl.audit import CONTROLS, decide
from retrace_pl.errors import InputError, RunError
from retrace_pl.report import RunData, write_report
from retrace_pl.report.tables import metric_table

ATTACK = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags with their attributes and the visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def full(full_run):
    path = write_report(full_run)
    return path, Page(path.read_text(encoding="utf-8"))


def report(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    return text, Page(text)


def test_contents_come_in_order(full):
    _, page = full
    wanted = [
        "Digits, negative gradient: class 3 deleted",
        "What was deleted, and what the auditor saw",
        "What came back",
        "How much of it is a leak",
        "What the models give away",
        "How the search went",
        "All metrics",
        "How well it was forgotten by the usual measures",
        "What the verdict rests on",
        "How to read this, and its limits",
        "Settings",
    ]
    assert page.headings == wanted
    for words in (
        "a perfect retrain leaks as much",
        "The public set has no example of the deleted class.",
        "The single best reconstruction",
        "The 64 best candidates",
        "Records in each split",
    ):
        assert words in page.text


def test_numbers_are_those_of_the_file(full):
    _, page = full
    for words in ("95%", "91% to 99%", "+0.870", "+0.790 to +0.940", "32.6", "20,480", "0.0612", "2.14.1", "44.1"):
        assert words in page.text


def test_every_metric_row_has_attack_and_all_controls(full):
    path, _ = full
    rows = re.findall(r"<tr><th scope=\"row\"><abbr.*?</tr>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(rows) > 15
    for row in rows:
        assert len(re.findall(r"<td class=\"num", row)) == 2 + len(CONTROLS)


def test_prior_only_has_no_score_because_it_asked_no_model(full_run):
    table = metric_table(RunData.load(full_run), "distribution")
    row = next(row for row in table.rows if row.metric.title == "Trace score")
    cells = dict(zip(table.arms, row.cells, strict=True))
    assert cells["prior"].text == "not applicable"
    assert cells["attack"].text == "0.987"
    assert cells["identity"].text == "0"


def test_copies_left_out_are_counted(metrics, make_run):
    metrics["dropped_copies"] = {"train": 3, "test": 4}
    _, page = report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={}))
    assert "7 copies of other records were left out" in page.text


def test_rivals_stand_beside_the_attack(full):
    _, page = full
    assert "Random search" in page.text
    assert "61%" in page.text


def test_self_contained_and_readable_without_javascript(full):
    path, page = full
    text = path.read_text(encoding="utf-8")
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href", "action", "data"):
            if name in attributes:
                assert attributes[name].startswith("data:")
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(tag for tag, _ in page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in page.text
    assert path.stat().st_size < 4_000_000


def test_every_picture_has_alternative_text_and_figures_come_in_both_schemes(full):
    _, page = full
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) > 80
    assert all(image.get("alt", "").strip() for image in images)
    sources = [attributes for tag, attributes in page.tags if tag == "source"]
    assert len(sources) >= 8
    assert all("prefers-color-scheme: dark" in source["media"] for source in sources)


def test_candidates_show_hits_scores_and_distances(full):
    path, page = full
    assert "✓" in page.text
    assert re.search(r"s 0\.9\d", page.text)
    assert "12 of 64 shown." in page.text
    assert "pixelated" in path.read_text(encoding="utf-8")


def test_names_from_the_run_are_inert(metrics, make_run):
    metrics["name"] = metrics["verdict_reason"] = ATTACK
    metrics["setting"]["deleted_classes"] = [ATTACK]
    metrics["splits"]["train"] = {ATTACK: 3}
    metrics["versions"] = {ATTACK: ATTACK}
    metrics["setting"]["access"] = ATTACK
    metrics["classes"] = [ATTACK, *metrics.get("classes", [])]
    folder = make_run(metrics=metrics, curves={ATTACK: [[1, 0.5, 0.5], [2, 0.6, 0.5]], "$x_$": [[1, 0.1, 0.1]]})
    (folder / "config.yaml").write_text(f"a: {ATTACK}")
    text, page = report(folder)
    assert "<script" not in text
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(ATTACK) >= 7


@pytest.mark.parametrize("control", list(CONTROLS))
@pytest.mark.parametrize("how", ["null", "absent"])
def test_a_control_that_did_not_run_is_said_so(metrics, make_run, control, how):
    if how == "null":
        metrics["controls"][control] = None
    else:
        metrics["controls"].pop(control, None)
    _, page = report(make_run(metrics=metrics, tensors={"attack.distribution": torch.zeros(2, 1, 4, 4)}, curves={}))
    assert f"{CONTROLS[control].title} (not run)" in page.text
    assert "not run" in page.text


def test_nothing_but_metrics_json(metrics, tmp_path):
    sparse = {"schema": 1, "verdict": "invalid"}
    (tmp_path / "metrics.json").write_text(json.dumps(sparse))
    _, page = report(tmp_path)
    assert "Invalid audit" in page.text
    assert decide(sparse).reason in page.text
    assert "an unknown number of records" in page.text
    assert "95%" not in page.text


def nulled(node):
    if isinstance(node, dict):
        return {key: nulled(value) for key, value in node.items()}
    return None if isinstance(node, float) else node


def test_null_metrics_are_not_applicable(metrics, make_run):
    text, page = report(make_run(metrics=nulled(metrics), curves={}))
    assert "not applicable" in page.text
    assert "not run" in page.text
    assert "None" not in page.text
    assert ">nan<" not in text


def test_record_deletion_and_public_set_with_the_deleted_class(metrics, make_run):
    metrics["setting"].update(deletion="records", public_includes_deleted=True, deleted_classes=["a", "b"])
    _, page = report(make_run(metrics=metrics, curves={}))
    assert "The public set includes other examples of the classes of the deleted records." in page.text
    assert "61 records out of classes a, b (DigitsSource)" in page.text


def test_candidates_that_are_no_pictures(metrics, make_run):
    tensors = {"attack.distribution": torch.zeros(5, 7), "prior.distribution": torch.zeros(5, 9, 4, 4)}
    _, page = report(make_run(metrics=metrics, tensors=tensors, curves={}))
    assert page.text.count("these candidates are not pictures") == 2


def test_constant_and_nan_traces_are_drawn(metrics, make_run):
    tensors = {"traces.forget.score": torch.zeros(9), "traces.retain.score": torch.tensor([0.0, np.nan])}
    _, page = report(make_run(metrics=metrics, tensors=tensors, curves={"identity": [[1, 0.0, 0.0]]}))
    assert "Score: AUROC 0.996" in page.text


def test_a_verdict_that_does_not_follow_is_pointed_out(metrics, make_run):
    metrics["verdict"] = "no_evidence"
    _, page = report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={}))
    assert "No evidence of a leak" in page.text
    assert "Recomputing the verdict from the stored numbers with the default thresholds gives “leak”" in page.text


def test_the_same_run_gives_the_same_bytes(metrics, make_run):
    folder = make_run(metrics=metrics, tensors={"traces.forget.loss": torch.rand(9)})
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_errors_are_one_line(tmp_path, metrics, make_run):
    with pytest.raises(InputError, match="retrace evaluate"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text('{"schema": 99}')
    with pytest.raises(RunError, match="schema 1"):
        write_report(tmp_path)
    folder = make_run(metrics=metrics)
    (folder / "evaluation.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(RunError, match=r"evaluation\.safetensors cannot be read"):
        write_report(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder(full_run, tmp_path):
    (tmp_path / "metrics.json").write_text((full_run / "metrics.json").read_text())
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(RunError, match="cannot write"):
        write_report(tmp_path)
    tmp_path.chmod(stat.S_IRWXU)


def test_damaged_numbers_in_lists_do_not_break_loading(full_run):
    run = RunData.load(full_run)
    assert run.get("attack.distribution.sr_oracle") == 0.95
    assert run.number("setting.access") is None
    assert run.images("traces.forget.score") is None
    assert run.images("attack.distribution").shape == (64, 1, 16, 16)


def test_pyplot_stays_out():
    folder = Path(retrace_pl.report.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "pyplot" in path.read_text()]
