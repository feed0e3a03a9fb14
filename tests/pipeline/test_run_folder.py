import os

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline.run_folder import (
    RunFolder,
    atomic_path,
    fingerprint,
    load_weights,
    read_json,
    read_tensors,
    seed_for,
    seeded_module,
    write_json,
    write_tensors,
)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError), atomic_path(path) as temporary:
        temporary.write_text(b"half")
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(RunError, match="No space left on device; free some space"), atomic_path(tmp_path / "x"):
        raise OSError(28, os.strerror(28))
    assert not list(tmp_path.iterdir())


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    write_json(tmp_path / "v.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": None})
    assert read_json(tmp_path / "v.json") == {"a": None, "b": [None, 1.5], "c": None}


def test_tensors_survive_a_round_trip(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    back = read_tensors(tmp_path / "t.safetensors")
    assert set(back) == {"a", "b"}
    assert torch.equal(back["a"], tensors["a"])


def test_truncated_tensors_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunError, match="cannot be read"):
        read_tensors(path)


def test_pickle_payload_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"a": Payload()}, tmp_path / "evil.safetensors")
    with pytest.raises(RunError, match="cannot be read"):
        read_tensors(tmp_path / "evil.safetensors")
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_architecture_are_named(tmp_path):
    write_tensors(tmp_path / "w.safetensors", nn.Linear(3, 2).state_dict())
    with pytest.raises(InputError, match="another architecture than Linear"):
        load_weights(nn.Linear(4, 2), tmp_path / "w.safetensors")


def test_missing_files_say_what_to_run(tmp_path):
    for read in (read_json, read_tensors):
        with pytest.raises(RunError, match="run the earlier stages"):
            read(tmp_path / "none")


def test_stage_counts_as_done_only_with_its_key_and_outputs(tmp_path):
    folder = RunFolder(tmp_path)
    folder.path("out.json").write_text("1")
    folder.finish("attack", "key", ["out.json"], 1.0)
    assert folder.is_done("attack", "key")
    assert not folder.is_done("attack", "other")
    folder.path("out.json").write_text("123")
    assert not folder.is_done("attack", "key")
    folder.path("out.json").unlink()
    assert not folder.is_done("attack", "key")


def test_damaged_marker_means_not_done(tmp_path):
    folder = RunFolder(tmp_path)
    folder.path("out.json").write_text("1")
    folder.finish("attack", "key", ["out.json"], 1.0)
    (tmp_path / "stages" / "attack.json").write_text('{"key": "ke')
    assert not folder.is_done("attack", "key")


def test_beginning_a_stage_removes_what_later_stages_made(tmp_path):
    folder = RunFolder(tmp_path)
    for stage, output in (("attack", "a"), ("report", "r")):
        folder.path(output).write_text("1")
        folder.finish(stage, "key", [output], 1.0)
    folder.begin("attack", ("report",))
    assert folder.path("a").exists()
    assert not folder.path("r").exists()
    assert not folder.is_done("report", "key")


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "file")


def test_fingerprint_ignores_order_but_no_value():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_seeds_differ_by_purpose_and_repeat():
    seeds = {seed_for(0, "search", 0), seed_for(0, "search", 1), seed_for(1, "search", 0), seed_for(0, "prior", 0)}
    assert len(seeds) == 4
    assert seed_for(0, "search", 0) == seed_for(0, "search", 0)


def test_seeded_module_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (seeded_module(lambda: nn.Linear(2, 2), 1) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.weight, second.weight)
