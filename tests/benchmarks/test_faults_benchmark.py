import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.files import write_json, write_tensors

FILE = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(FILE.parent))  # where the processes of an audit look for their function
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FILE.parent))
    del sys.modules[spec.name]


@pytest.fixture
def runs(tmp_path):
    """Two equal run folders."""
    for name in ("finished", "again"):
        write_tensors(tmp_path / name / "original.safetensors", {"a": torch.arange(9.0)})
        write_json(tmp_path / name / "metrics.json", {"verdict": "leak", "seconds": {"attack": hash(name) % 7}})
    return tmp_path / "finished", tmp_path / "again"


def test_whole_files_pass_and_partial_ones_do_not(faults, runs):
    finished, again = runs
    assert faults.not_whole(again, finished) is None
    assert faults.numbers(again) == faults.numbers(finished)
    (again / ".original.safetensors.x.part").write_bytes(b"half")  # nobody reads it
    assert faults.not_whole(again, finished) is None
    for name, content in (("original.safetensors", b"\x08"), ("metrics.json", b'{"verd'), ("last.ckpt", b"PK\x03\x04")):
        whole = (again / name).read_bytes() if (again / name).exists() else None
        (again / name).write_bytes(content)
        assert name in faults.not_whole(again, finished)
        (again / name).unlink() if whole is None else (again / name).write_bytes(whole)
    write_tensors(again / "original.safetensors", {"a": torch.arange(9.0).flip(0)})
    assert "other tensors" in faults.not_whole(again, finished)


def test_the_table_counts_what_was_lost(faults):
    def tried(index, fault="SIGKILL", left=(), problem=None):
        stage = faults.STAGES[index % 6]
        return {"fault": fault, "index": index, "stage": stage, "point": 0.5, "left": left, "problem": problem}

    tries = [tried(0, left=["last.ckpt"]), tried(6, left=[".a.part"], problem="the rerun has other metrics"), tried(1)]
    about = dict.fromkeys(("command", "date", "hardware", "seed", "config"), "x")
    table = faults.markdown({**about, "tries": [*tries, tried(0, "Ctrl-C")]})
    assert "| pretrain | SIGKILL | 2 | 1 | 1 | 1 | 1 |" in table
    assert "| **all** | SIGKILL | 3 | 2 | 1 | 1 | 1 |" in table
    assert "| pretrain | Ctrl-C | 1 | 1 | 0 | 0 | 0 |" in table
    assert "lost: SIGKILL in pretrain (try 6): the rerun has other metrics" in table


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_round_of_each_fault(faults, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    arguments = ["faults.py", "--quick", "--runs", str(tmp_path / "runs"), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", arguments)
    faults.main()
    found = json.loads((results / "faults.json").read_text())
    assert {row["fault"] for row in found["tries"]} == {"SIGKILL", "Ctrl-C", "full disk"}
    assert [row["problem"] for row in found["tries"]] == [None] * 3
