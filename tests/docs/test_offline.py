"""A page that fetches something from elsewhere stops the build."""

from types import SimpleNamespace

import pytest

PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))


@pytest.fixture
def offline(hooks):
    return hooks("offline")


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://example.org">a link to follow</a>',
        '<link rel="canonical" href="https://example.org/page/">',
        '<img src="images/demo.png"><script src="../assets/a.js"></script>',
        "<code>&lt;script src='https://example.org/x.js'&gt;</code>",
    ],
)
def test_links_and_own_files_are_fine(offline, page):
    assert offline.on_post_page(page, page=PAGE) == page


@pytest.mark.parametrize(
    "page",
    [
        '<script async src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/css">',
        '<p><img alt="" src="http://example.org/badge.svg"/></p>',
    ],
)
def test_what_a_browser_fetches_is_refused(offline, page):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"page\.md: fetches .*example\.org"):
        offline.on_post_page(page, page=PAGE)
