"""On one machine an audit gives the same bits every time."""

import json

from retrace_pl.cli import main
from retrace_pl.files import read_json


def without_seconds(value):
    """The same plain values without what time something took."""
    if isinstance(value, dict):
        return {name: without_seconds(item) for name, item in value.items() if "seconds" not in name}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def test_two_whole_audits_are_equal_to_the_last_bit(finished_run, tmp_path, tiny):
    again = tmp_path / "run"
    assert main(["audit", "--config", tiny, "--output", str(again), "--quiet"]) == 0
    tensors = sorted(path.name for path in finished_run.glob("*.safetensors"))
    assert {"original.safetensors", "generator.safetensors", "candidates.safetensors", "policy.safetensors"} <= {
        *tensors
    }
    assert tensors == sorted(path.name for path in again.glob("*.safetensors"))
    assert [name for name in tensors if (again / name).read_bytes() != (finished_run / name).read_bytes()] == []
    for name in ("metrics.json", "searches.json", "curves.json", "calibration.json", "policy.json"):
        first, second = (without_seconds(read_json(folder / name)) for folder in (finished_run, again))
        assert json.dumps(first) == json.dumps(second), name
