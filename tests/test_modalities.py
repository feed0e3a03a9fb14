"""What is particular to images or texts stays in data, models and metrics: no other code asks what kind it has."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "retrace_pl"
HOME = ("data", "models", "metrics")
"""Where code may know which kind of data it has."""

KINDS = {
    f"{kind}{part}"
    for kind in ("Text", "Token", "Image", "Labelled", "Pixel", "Word")
    for part in (
        "Domain",
        "Source",
        "Classifier",
        "Generator",
        "Behaviour",
        "Settings",
        "Texts",
        "Tensors",
        "Tokenizer",
    )
} | {
    "DCGAN",
    "DistilBertClassifier",
    "GPT2Generator",
    "SequenceClassifier",
    "TextUnlearningDataModule",
    "UnlearningDataModule",
}
"""Classes of one kind of data."""

NAMES = re.compile(r"\b(is_texts?|is_images?|modality|input_ids|attention_mask|vocab(ulary|_size)?|token_ids)\b")
"""Words that a condition about the kind of data would have in it."""

ALLOWED = {
    "tasks/text_generator.py": "the task that trains generators of texts refuses others",
    "external/images.py": "pairs of foreign models: the part for images",
    "external/texts.py": "pairs of foreign models: the part for texts",
    "external/state_dict.py": "which arguments the weights of the package's own image classifiers tell",
}
"""Modules for one kind of data, that others reach through a protocol."""


def conditions(tree):
    """Everything that a branch, a loop or a filter depends on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Match):
            yield node.subject


def asks_for_the_kind(condition):
    """Whether a condition tells kinds of data apart: by class, by the name of a domain, or by what only texts have."""
    for node in ast.walk(condition):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            if named & KINDS:
                return True
        if isinstance(node, ast.Compare):
            compared = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if {"text", "texts", "image", "images"} & {value for value in compared if isinstance(value, str)}:
                return True
    return bool(NAMES.search(ast.unparse(condition)))


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        if name.parts[0] not in HOME:
            yield name.as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_branch_on_the_kind_of_data_outside_data_models_and_metrics():
    found = {
        f"{name}:{condition.lineno}: {ast.unparse(condition)}"
        for name, tree in modules()
        for condition in conditions(tree)
        if asks_for_the_kind(condition) and name not in ALLOWED
    }
    assert not found, "\n".join(sorted(found))


def test_only_the_parts_for_one_kind_import_its_data_models_and_metrics():
    """Whoever imports no class of texts cannot treat them in a way of its own; the report marks spans of passages."""
    parts = re.compile(r"retrace_pl\.(data|metrics)\.text\b")
    found = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and parts.match(node.module or "")
    }
    assert found <= {"external/texts.py", "report/passages.py"}


@pytest.mark.parametrize(
    "line",
    [
        "if isinstance(domain, TextDomain): pass",
        "x = 1 if data.domain == 'texts' else 2",
        "if 'input_ids' in batch: pass",
        "if kind.is_text: pass",
        "[x for x in y if isinstance(x, (int, GPT2Generator))]",
    ],
)
def test_such_a_branch_would_be_found(line):
    assert any(asks_for_the_kind(condition) for condition in conditions(ast.parse(line)))


@pytest.mark.parametrize("line", ["if texts is not None: pass", "if image.ndim == 4: pass", "if len(text) > 3: pass"])
def test_what_is_shown_may_be_missing(line):
    assert not any(asks_for_the_kind(condition) for condition in conditions(ast.parse(line)))
