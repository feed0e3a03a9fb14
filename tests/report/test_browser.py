"""The report in a real browser: complete, legible and quiet, on a phone and in the dark, with scripts and without."""

import shutil

import pytest
import torch

from retrace_pl.report import write_report

from .conftest import make_curves, make_metrics, make_tensors, write_run
from .test_evidence import evidence
from .test_other_attacks import pictures as pictures_of_others
from .test_other_attacks import with_others

WINDOWS = [(scheme, width) for scheme in ("light", "dark") for width in (360, 1280)]
EVIL = '<script>document.title = "taken"</script><img src="https://example.org/x.png" alt="no picture">'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The report of an audit of images, with everything in it."""
    tensors = make_tensors() | pictures_of_others()
    tensors |= {"attack.score_p": torch.full((64,), 0.42), "attack.likeness_p": torch.full((64,), 0.0312)}
    metrics = with_others(evidence(make_metrics()))
    curves = make_curves() | {"baselines.retrace_cma_es": [[10, 0.1, 0.1], [20, 0.4, 0.3]]}
    folder = tmp_path_factory.mktemp("pictures") / "run"
    return write_report(write_run(folder, metrics=metrics, tensors=tensors, curves=curves))


@pytest.fixture(scope="module")
def passages(text_run, tmp_path_factory):
    """The report of an audit of texts."""
    folder = tmp_path_factory.mktemp("texts") / "run"
    return write_report(shutil.copytree(text_run, folder))


@pytest.fixture(scope="module")
def shown(browser, pictures, passages):
    """The reports in every window."""
    pages = {"pictures": pictures, "passages": passages}
    return {
        (kind, scheme, width): (page, browser.look(page, scheme=scheme, width=width))
        for kind, page in pages.items()
        for scheme, width in WINDOWS
    }


@pytest.mark.parametrize(("scheme", "width"), WINDOWS)
@pytest.mark.parametrize("kind", ["pictures", "passages"])
def test_complete_legible_and_quiet(shown, kind, scheme, width):
    page, look = shown[kind, scheme, width]
    look.check(page.as_uri())
    look.check_outline()
    assert len(look.images) > (120 if kind == "pictures" else 5)
    assert len(look.texts) > 200


def test_the_dark_scheme_has_its_own_colours_and_figures(shown):
    light, dark = (shown["pictures", scheme, 1280][1] for scheme in ("light", "dark"))
    assert light.outline["background"] == "rgb(255, 255, 255)"
    assert dark.outline["background"] == "rgb(20, 23, 26)"
    sources = [[image["source"] for image in look.images if image["figure"]] for look in (light, dark)]
    assert len(sources[0]) >= 8
    assert all(one != other for one, other in zip(*sources, strict=True))


def test_texts_instead_of_pictures_are_there(shown):
    told = " ".join(text["text"] for text in shown["passages", "light", 1280][1].texts)
    assert "The central bank raised its main interest rate" in told


@pytest.mark.parametrize("kind", ["pictures", "passages"])
def test_the_same_without_scripts(shown, browser, kind):
    page, with_scripts = shown[kind, "light", 360]
    without = browser.look(page, width=360, scripts=False)
    without.check(page.as_uri())
    assert with_scripts.outline["scripts"] == 0
    assert without.texts == with_scripts.texts


def test_names_from_a_run_are_inert(browser, make_run, metrics):
    metrics["name"] = EVIL
    metrics["setting"]["deleted_classes"] = [EVIL]
    metrics["classes"] = [EVIL]
    page = write_report(make_run(metrics=metrics))
    look = browser.look(page)
    look.check(page.as_uri())
    assert look.outline["scripts"] == 0
    assert look.outline["title"] != "taken"
    assert EVIL[:60] in {text["text"] for text in look.texts}


def test_what_the_checks_would_find(browser, tmp_path):
    """A page with one fault of each kind, so that a check that finds nothing means something."""
    page = tmp_path / "faulty.html"
    page.write_text(
        "<!doctype html><title>x</title><body style='background:#fff'><h2>Second</h2>"
        "<p id=pale style='color:#8a8a8a'>pale</p><p id=clear style='color:#59636e'>clear</p>"
        "<p style='color:#000;opacity:.3'>faded</p><p style='display:none'>hidden</p>"
        "<div style='background:rgba(0,0,0,.6)'><span style='color:#444'>dim</span></div>"
        "<table><colgroup><col><col style='background:#333'></colgroup><tbody><tr><td>first<td>second</tbody></table>"
        "<div style='width:900px'>wide</div><img src='data:image/png;base64,AAAA' alt=''>"
        "<p id=narrow style='width:20px;white-space:nowrap'>a long caption</p>"
        "<img src='http://127.0.0.1:9/away.png' alt='a picture'><script>console.error('trouble'); nowhere()</script>"
    )
    look = browser.look(page, width=360)
    contrast = {text["text"]: text["contrast"] for text in look.texts}
    assert contrast["pale"] == pytest.approx(3.45, abs=0.01)  # (1 + .05) / (luminance(#8a8a8a) + .05)
    assert contrast["clear"] > 4.5
    assert contrast["first"] == pytest.approx(21)
    assert {name for name, value in contrast.items() if value < 4.5} == {"pale", "faded", "dim", "second"}
    assert [text["text"] for text in look.texts if not text["shown"]] == ["hidden"]
    assert look.extent["page"] > 360
    assert any('id="narrow"' in box for box in look.extent["spilled"])
    assert [image["drawn"] for image in look.images] == [False, False]
    assert any("trouble" in line for line in look.troubles)
    assert any("nowhere" in line for line in look.troubles)
    assert "http://127.0.0.1:9/away.png" in look.requests
    for check in (lambda: look.check(page.as_uri()), look.check_outline):
        with pytest.raises(AssertionError):
            check()
