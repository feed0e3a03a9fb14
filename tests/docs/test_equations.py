"""Equations become MathML, and what cannot be converted stops the build."""

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
MATH = "{http://www.w3.org/1998/Math/MathML}"


@pytest.fixture
def equations(hooks):
    return hooks("equations")


def test_a_fraction_is_a_fraction(equations):
    tree = ElementTree.fromstring(equations.to_mathml(r"\frac{a}{2}", "block"))
    assert tree.tag == f"{MATH}math"
    assert tree.get("display") == "block"
    above, below = tree.find(f".//{MATH}mfrac")
    assert ("".join(above.itertext()), "".join(below.itertext())) == ("a", "2")


def test_inline_and_display_equations_of_a_page_are_replaced(equations):
    markdown = pytest.importorskip("markdown")
    source = "The sum $a < b$ and\n\n$$a \\cdot b$$\n\nbut `$HOME` stays, and so do 3 $ and 4 $.\n"
    shown = markdown.markdown(
        source, extensions=["pymdownx.arithmatex"], extension_configs={"pymdownx.arithmatex": {"generic": True}}
    )
    page = equations.on_page_content(shown, page=PAGE)
    assert page.count("<math") == 2
    assert page.count('<div class="equation"') == 1
    assert "arithmatex" not in page
    assert "<code>$HOME</code>" in page
    assert "3 $ and 4 $" in page
    assert "&#x0003C;" in page, "the comparison stays escaped"


@pytest.mark.parametrize("latex", [r"\notacommand{x}", r"\frac{a}{"])
def test_an_equation_that_cannot_be_converted_names_its_page(equations, latex):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"page\.md: equation cannot be converted"):
        equations.on_page_content(f'<span class="arithmatex">\\({latex}\\)</span>', page=PAGE)
