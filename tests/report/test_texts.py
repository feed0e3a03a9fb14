"""The report of an audit of texts: candidates beside their nearest deleted texts, whatever the texts say."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from retrace_pl.metrics.text import TEXTS
from retrace_pl.report import RunData, overview_figure, write_report
from retrace_pl.report.gallery import best_reconstruction, picture_panel
from retrace_pl.report.overview import draw_overview
from retrace_pl.report.passages import pair_lines, passage, passage_pair

ATTACK = '<script>alert("x")</script><img src=x onerror=alert(1)> & </blockquote>'


def test_shared_spans_are_marked_in_both_texts():
    first, second = passage_pair("The bank raised rates on Friday.", "On Friday the bank raised fees.", ("a", "b"))
    assert [(part.text, part.shared) for part in first.parts] == [
        ("The bank raised", True),
        (" rates ", False),
        ("on Friday", True),
        (".", False),
    ]
    assert "".join(part.text for part in second.parts) == "On Friday the bank raised fees."
    assert pair_lines("The bank raised rates", "the bank raised fees") == ["ROUGE-L 0.75", "3 words in a row"]
    assert pair_lines("one", "two") == ["ROUGE-L 0.00"]


def test_long_and_empty_texts():
    long = passage("x" * 3000, "long", [(1150, 1300)])
    assert len("".join(part.text for part in long.parts)) == 1201
    assert long.parts[1].shared
    assert passage("", "empty").parts == ()


def test_every_arm_shows_candidates_and_nearest_texts(text_run):
    run = RunData.load(text_run)
    for arm in ("attack", "prior", "matched_retrain"):
        panel = picture_panel(run, arm, "")
        assert len(panel.shots) == 6
        assert panel.total == 8
        assert all(shot.nearest is not None for shot in panel.shots)
        best = best_reconstruction(run, arm)
        assert best.nearest_label == "nearest deleted text"
        assert any(line.startswith("ROUGE-L") for line in best.shot.lines)
    assert any(part.shared for part in picture_panel(run, "attack", "").shots[0].candidate.parts)


def test_report_has_the_metrics_of_texts_beside_unseen_texts(text_run):
    text = write_report(text_run).read_text(encoding="utf-8")
    for metric in TEXTS.metrics.values():
        assert metric.title in text, metric.title
    for words in ("unseen real texts", "two deleted texts, most similar", "First text: a candidate", "unseen texts"):
        assert words in text
    for words in ("MSE", "picture", "image", "pixel"):
        visible = re.sub(r"<style>.*?</style>|data:image/[^\"]*|<meta[^>]*>|<[^>]*>", "", text, flags=re.DOTALL)
        assert words not in visible, words
    assert re.search(r"<mark>[^<]+</mark>", text)
    assert "<script" not in text


def test_texts_are_inert(text_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("metrics.json", "curves.json", "evaluation.safetensors"):
        (folder / name).write_bytes((text_run / name).read_bytes())
    texts = json.loads((text_run / "texts.json").read_text())
    for name in texts:
        texts[name] = [f"{ATTACK} \u202e \x07 {name}", *texts[name][1:]]
    (folder / "texts.json").write_text(json.dumps(texts))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "onerror=alert(1)>" not in text
    tags, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(text)
    assert not [tag for tag, attributes in tags if tag == "script" or "onerror" in attributes]
    said = html.unescape(re.sub(r"<[^>]*>", "", text))
    assert ATTACK in said
    assert text.count("<blockquote") == text.count("</blockquote>")
    assert overview_figure(folder).is_file()


def test_damaged_texts_are_left_out(text_run, tmp_path):
    for content in ("[]", '{"attack.distribution": [1, 2], "attack.nearest": "no list"}'):
        (tmp_path / "metrics.json").write_bytes((text_run / "metrics.json").read_bytes())
        (tmp_path / "texts.json").write_text(content)
        assert RunData.load(tmp_path).texts == {}
        assert "no texts were stored" in write_report(tmp_path).read_text()


def test_overview_writes_texts_out(text_run):
    written = [text.get_text().replace("\n", " ") for text in draw_overview(RunData.load(text_run)).texts]
    first = json.loads((text_run / "texts.json").read_text())["attack.distribution"][0]
    assert any(first[:60] in text for text in written)
    with Image.open(overview_figure(text_run)) as picture:
        assert picture.width > 1000


@pytest.mark.parametrize("letters", ["日本語 text", "$x_{$ & a_b", "", "tab\tand\nline"])
def test_overview_draws_any_text(text_run, tmp_path, letters):
    (tmp_path / "metrics.json").write_bytes((text_run / "metrics.json").read_bytes())
    (tmp_path / "texts.json").write_text(json.dumps({"attack.distribution": [letters], "attack.nearest": [letters]}))
    assert overview_figure(tmp_path).is_file()


def test_token_tensors_beside_the_texts_are_no_pictures(text_run):
    run = RunData.load(text_run)
    assert run.images("attack.distribution") is None
    assert run.tensors["attack.distribution"].shape == (8, 24)
    assert torch.from_numpy(run.tensors["attack.distribution"]).dtype == torch.float32
