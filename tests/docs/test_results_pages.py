"""Results are taken from the files of benchmarks/results."""

from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
CONFIG = SimpleNamespace(config_file_path=str(ROOT / "mkdocs.yml"))
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))


@pytest.fixture
def results(hooks):
    return hooks("results")


def test_every_file_becomes_a_page_with_its_own_text(results):
    for path in RESULTS:
        page = results.page_of(path)
        assert path.read_text(encoding="utf-8") in page
        assert page.startswith("# ")


def test_every_file_is_in_the_navigation(results):
    config = SimpleNamespace(nav=[{"Start": "index.md"}, {"Results": "results.md"}], **vars(CONFIG))
    first, *pages = results.on_config(config).nav[1]["Results"]
    assert first == "results.md"
    assert [path for page in pages for path in page.values()] == [f"results/{path.name}" for path in RESULTS]


def test_a_navigation_without_results_is_refused(results):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match="no entry"):
        results.on_config(SimpleNamespace(nav=[{"Start": "index.md"}], **vars(CONFIG)))


def test_a_table_is_put_in_as_it_is(results):
    text = (ROOT / "benchmarks" / "results" / "inference.md").read_text(encoding="utf-8")
    page = results.on_page_markdown("before\n\n<!-- results: inference.md 2 -->\n\nafter", page=PAGE, config=CONFIG)
    table = page.removeprefix("before\n\n").removesuffix("\n\nafter")
    assert table.startswith("| membership inference |")
    assert table in text


@pytest.mark.parametrize("name", ["inference.md 3", "inference.md 0", "nothing.md 1"])
def test_a_table_that_does_not_exist_stops_the_build(results, name):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"page\.md"):
        results.on_page_markdown(f"<!-- results: {name} -->", page=PAGE, config=CONFIG)


def test_the_list_names_every_page_and_its_script(results):
    page = results.on_page_markdown("<!-- results -->", page=PAGE, config=CONFIG)
    for path in RESULTS:
        assert f"(results/{path.name})" in page
    assert "`python benchmarks/search.py" in page
