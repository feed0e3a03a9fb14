"""The section of other attacks: numbers beside their controls, reasons, pictures, sentences; and runs without it."""

import copy
import re
from html.parser import HTMLParser

import pytest
import torch

from retrace_pl.report import RunData, write_report
from retrace_pl.report.glossary import arm_title, attack_title
from retrace_pl.report.other_attacks import asked_text, finding_sentences, other_attacks

HEADING = "Other attacks at the same budget"
ATTACK = '<img src=x onerror="alert(1)">'


def leak(value, low, high, metric="sr_oracle"):
    return {"value": value, "low": low, "high": high, "metric": metric, "level": 0.95, "repeats": 1, "note": ""}


def baseline(row, sr, *, queries=20480, asked=("prediction", "loss", "gradient"), retrain=0.5):
    found = copy.deepcopy(row) | {"applicable": True, "queries": queries, "asked": list(asked), "attack": "Toy"}
    found["distribution"]["sr_oracle"] = sr
    control = copy.deepcopy(found)
    control["distribution"]["sr_oracle"] = retrain
    control["distribution"]["intervals"]["sr_oracle"] = [retrain - 0.1, retrain + 0.1]
    return found | {
        "controls": {"matched_retrain": control},
        "leakage": {"excess": leak(sr - 0.08, sr - 0.16, sr), "avoidable": leak(sr - retrain, -0.1, 0.4)},
    }


def with_others(metrics):
    row = metrics["rivals"]["random"]
    metrics["baselines"] = {
        "max_diff": baseline(row, 0.42, queries=128, retrain=0.31),
        "uia": baseline(row, 0.17, queries=0, asked=["parameters"]) | {"distinguished_by": {"tv_weight": 0.01}},
        "retrace_cma_es": baseline(row, 0.77),
        "hrec": {"applicable": False, "reason": f"hrec: no last layer {ATTACK}", "controls": {}, "leakage": {}},
        ATTACK: baseline(row, 0.03),
    }
    control = {"applicable": True, "queries": 128, "answer": {"class": 3, "margin": 1.234, "clear": False}}
    control |= {"judged": {"correct": True}}
    metrics["classes"] = ["zero", "one", "two", "three"]
    metrics["inferences"] = {
        "class_inference": {
            "applicable": True,
            "queries": 1280,
            "answer": {"class": 3, "margin": 1.234, "clear": True, "evidence": {"0": 1.0}, "all": list(range(100))},
            "judged": {"correct": True},
            "controls": {"matched_retrain": control},
        },
        "unlearning_leaks": {"applicable": False, "reason": "no shadow", "controls": {}},
        "odd": {"applicable": True, "answer": {ATTACK: ATTACK}, "judged": None, "reason": ATTACK, "controls": {}},
    }
    return metrics


def pictures():
    found = {"x": torch.zeros(1)}
    for index, name in enumerate(("max_diff", "uia", "retrace_cma_es")):
        images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(index))
        found |= {f"baselines.{name}.distribution": images, f"baselines.{name}.nearest": images.flip(0).clone()}
        found[f"baselines.{name}.success"] = torch.ones(12)
        found[f"baselines.{name}.scores"] = torch.full((12,), 0.25)
    return found


@pytest.fixture
def page(metrics, make_run):
    curve = [[10, 0.1, 0.1], [20, 0.4, 0.3]]
    curves = {"attack": curve, "baselines.retrace_cma_es": curve}
    folder = make_run(metrics=with_others(metrics), tensors=pictures(), curves=curves)
    return write_report(folder).read_text(encoding="utf-8")


class Section(HTMLParser):
    """Words, rows of cells, and pictures of the section."""

    def __init__(self, page):
        super().__init__()
        self.words, self.rows, self.images, self.tags = [], [], [], set()
        self.feed(page.split(f"<h2>{HEADING}</h2>")[1].split("</section>")[0])

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        elif tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += f" {data.strip()}"

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def row(self, title):
        return next([cell.strip() for cell in row] for row in self.rows if row and row[0].strip() == title)


def test_every_attack_stands_beside_the_same_controls(page):
    section = Section(page)
    assert section.row("Attack")[1:5] == ["20,480", "95% 91% to 99%", "+87 +79 to +94", "93% 89% to 97%"]
    assert section.row("Prior only")[1:3] == ["0", "8% 4% to 12%"]
    found = section.row("MaxDiff")
    assert found[1:5] == ["128", "42% 57% to 65%", "+34 +26 to +42", "31% 21% to 41%"]
    assert found[-1] == "probabilities, losses, input gradients"
    assert section.row("UIA tv weight 0.01")[-1] == "the models' parameters"
    assert section.row("ReTrace with CMA-ES")[2].startswith("77%")


def test_what_does_not_apply_says_why(page):
    section = Section(page)
    assert section.row("HRec")[1:] == [f"does not apply: hrec: no last layer {ATTACK}"]
    assert "Unlearning leaks does not apply: no shadow" in section.text


def test_findings_are_sentences_with_their_control(page):
    text = Section(page).text
    assert (
        "Class inference: deleted class three (correct); margin 1.23, set apart by a clear gap; 1,280 queries." in text
    )
    assert "On the matched retrain: deleted class three (correct); not set apart by a clear gap; 128 queries." in text


def test_names_and_answers_from_the_run_are_inert(page):
    section = Section(page)
    assert ATTACK not in page
    assert section.text.count(ATTACK) >= 4
    assert not [image for image in section.images if "onerror" in image]
    assert not re.search(r"style=\"[^\"]*onerror", page)


def test_pictures_have_alternative_texts(page):
    images = Section(page).images
    shown = [image["alt"] for image in images if image["alt"].startswith("MaxDiff")]
    assert shown == [f"MaxDiff, candidate {index + 1}, recognised by the evaluator" for index in range(6)]
    assert sum(image["alt"].startswith("Deleted record nearest to candidate") for image in images) == 18
    assert all(image["alt"].strip() for image in images)
    assert "6 of 12 shown." in page


def test_curves_that_climb_the_trace_have_a_figure_of_their_own(page):
    alts = re.findall(r'alt="([^"]*against queries[^"]*)"', page)
    assert len(alts) == 3
    assert [("CMA-ES" in alt) for alt in alts] == [True, False, False]


def test_runs_of_earlier_versions_have_no_such_section(full_run, metrics, make_run):
    assert other_attacks(RunData.load(full_run)) is None
    assert HEADING not in write_report(full_run).read_text()
    metrics |= {"baselines": {}, "inferences": {}}
    assert HEADING not in write_report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={})).read_text()


def test_inferences_alone_have_no_empty_table(metrics, make_run):
    metrics = with_others(metrics) | {"baselines": {}}
    section = Section(write_report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={})).read_text())
    assert "table" not in section.tags
    assert "Class inference: deleted class three" in section.text


def test_deleted_records_are_compared_by_distance(metrics, make_run):
    metrics = with_others(metrics)
    for row in (metrics["attack"], *metrics["controls"].values(), *metrics["baselines"].values()):
        row.get("distribution", {}).update(sr_oracle=None)
    metrics["leakage"]["excess"]["metric"] = "sr_mse"
    section = Section(write_report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={})).read_text())
    assert section.row("Attack")[2] == "90%"
    assert "Success (distance)" in section.text


def test_missing_numbers_are_said_to_be_missing(metrics, make_run):
    metrics["baselines"] = {"uia": {"applicable": True}, "broken": None, "hrec": {"applicable": False}}
    section = Section(write_report(make_run(metrics=metrics, tensors={"x": torch.zeros(1)}, curves={})).read_text())
    assert section.row("UIA")[1:5] == ["unknown", "not applicable", "not run", "not run"]
    assert section.row("HRec")[1:] == ["does not apply: no reason was given"]
    assert "None" not in section.text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("uia", "UIA"),
        ("uia_2", "UIA (2)"),
        ("retrace_cem", "ReTrace with CEM"),
        ("retrace_gradient_ascent", "ReTrace with gradient ascent"),
        ("retrace_cma_es_3", "ReTrace with CMA-ES (3)"),
        ("my_own", "my own"),
        ("max_difference", "max difference"),
    ],
)
def test_titles(name, title):
    assert attack_title(name) == title
    assert arm_title(f"baselines.{name}") == title


def test_what_was_asked_for_in_words():
    assert asked_text([]) == "nothing"
    assert asked_text(["prediction", "parameters"]) == "probabilities, the models' parameters"


def test_an_inference_that_names_no_class_says_so():
    values = {"answer": {"deleted_classes": [], "clear": False}, "judged": {"correct": False, "rank": 4}}
    assert finding_sentences("class_inference", values) == [
        "Class inference: no class deleted (wrong); rank of the deleted class 4; not set apart by a clear gap."
    ]


def test_a_wrong_answer_is_called_wrong():
    values = {"applicable": True, "answer": {"class": 7}, "judged": {"correct": False, "truth": [3]}, "queries": 5}
    assert finding_sentences("class_inference", values) == [
        "Class inference: deleted class 7 (wrong); truth 3; 5 queries."
    ]
    values = {"applicable": True, "answer": {"deleted_classes": [1, 0]}, "judged": {"auroc": 0.5, "rank": None}}
    assert finding_sentences("odd", values, ["cat", "dog"]) == ["odd: deleted classes dog, cat; AUROC 0.5."]
