"""The code of docs/python-api.md, run from top to bottom on the tiny audit."""

import re
import shutil
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python-api.md"


def test_every_block_runs(finished_run, tiny, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    shutil.copytree(finished_run, tmp_path / "runs" / Path(tiny).stem)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block.replace('"digits"', repr(tiny)), str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert names["run"].verdict in shown
    assert names["smaller"].config.queries == 4096
    assert not names["smaller"].folder.exists()
    assert names["page"].name == "report.html"
    assert names["reconstruction"].inputs.shape == (16, 1, 16, 16)
    assert names["reconstruction"].queries == 1024
    assert len(names["pool"]) == 2048
    assert 0 < float(names["nearest"].compute()) < 1
