"""The reference has every setting, class, command and packaged configuration."""

import re

import pytest

from retrace_pl.cli import COMMANDS
from retrace_pl.pipeline.parsing import config_folders, make_parser
from retrace_pl.pipeline.parts import KINDS, parts


@pytest.fixture(scope="module")
def reference(hooks):
    return hooks("reference")


@pytest.fixture(scope="module")
def configuration(reference):
    return reference.configuration()


def keys(parser):
    """Every key of a parser, from its defaults and not from its actions; a default object counts as one."""
    flat = vars(parser.get_defaults(skip_validation=True).as_flat())
    return {re.split(r"\.(?:class_path|init_args)", key)[0] for key in flat} - {"config"}


def row(page, key):
    found = re.findall(rf"^\| `{re.escape(key)}` \|(.*)\|$", page, re.MULTILINE)
    assert found, f"{key} is missing"
    return found[0]


def test_every_key_of_an_audit_has_a_type_a_default_and_a_meaning(configuration):
    found = keys(make_parser("audit", ""))
    assert len(found) > 60
    for key in found:
        kind, default, meaning = (part.strip() for part in re.split(r"(?<!\\)\|", row(configuration, key), maxsplit=2))
        assert kind, key
        assert default, key
        assert len(meaning) > 5, key


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("latent.tau", ("`float`", "`0.002`", "prior term")),
        ("access", ("`black`, `gray`, `white`", "`white`")),
        ("searcher", ("[`Searcher`](searchers.md)", "**required**")),
        ("audit.controls", ("`[identity, 'null', prior, matched_retrain, holdout]`",)),
        ("classifier.model", ("[`Classifier`](models.md)",)),
        ("trainer.threads", ("`int` or `null`", "`null`")),
    ],
)
def test_known_rows(configuration, key, parts):
    for part in parts:
        assert part in row(configuration, key)


def test_the_other_two_forms_are_there(configuration):
    for key in ("original", "endpoint_budget", "exclude_classes", "generator_weights"):
        row(configuration, key)
    for key in ("methods", "gate.retain_margin", "slurm.partition"):
        row(configuration, key)


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_that_retrace_list_prints_has_a_section(reference, kind):
    page = reference.classes(kind)
    for part in parts(kind):
        assert re.search(rf"^##+ {part['name']}$", page, re.MULTILINE), part["name"]
        assert f"`{part['class_path']}`" in page


def test_settings_handed_to_a_base_class_are_listed(reference):
    page = reference.classes("unlearning")
    section = page[page.index("## SCRUB\n") :].partition("\n## ")[0]
    assert "short name `scrub`" in section
    assert {"lr", "epochs", "batch_size", "strength"} <= set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_arguments_that_the_audit_gives_are_no_settings(reference):
    page = reference.classes("models")
    assert "`num_classes`" not in page
    assert "| `width` |" in page


def test_every_packaged_configuration_is_shown_whole(reference):
    page = reference.packaged()
    files = sorted(config_folders()[-1].rglob("*.yaml"))
    assert len(files) > 80
    assert page.count("??? note") == len(files)
    for path in files:
        lines = [f"    {line}".rstrip() for line in path.read_text(encoding="utf-8").splitlines()]
        assert "\n".join(lines) in page, path


def test_every_command_is_there(reference):
    page = reference.commands()
    for name in COMMANDS:
        assert f"## retrace {name}\n" in page or f"`{name}`" in page


def test_markup_of_docstrings_is_escaped(hooks):
    described = hooks("described")
    assert described.cell("a | b, `c | d` <script> *x* and :class:`Y`") == r"a \| b, `c | d` &lt;script> \*x\* and `Y`"
