"""The report in a real browser: no sideways scroll, every picture drawn."""

import html
import json
import re
import shutil
import subprocess

import pytest

from retrace_pl.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--virtual-time-budget=10000 --dump-dom"
)
PROBE = """<!doctype html><iframe id=f style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>
<pre id=out></pre><script>
const frame = document.getElementById('f');
frame.onload = () => {{
  const page = frame.contentDocument, images = [...page.images];
  document.getElementById('out').textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth, images: images.length,
    broken: images.filter(image => !image.naturalWidth).length}});
}};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_fits_the_screen_and_draws_every_picture(full_run, tmp_path, width):
    page = write_report(full_run).read_text(encoding="utf-8")
    wrapper = tmp_path / "probe.html"
    wrapper.write_text(PROBE.format(width=width, page=html.escape(page)), encoding="utf-8")
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", wrapper.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', shown, re.DOTALL)[1]))
    assert found["width"] <= width
    assert found["images"] > 80
    assert found["broken"] == 0
