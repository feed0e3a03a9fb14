import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.files import write_tensors
from retrace_pl.pipeline.run_folder import RunFolder, fingerprint, load_weights, seed_for, seeded_module


def test_weights_of_another_architecture_are_named(tmp_path):
    write_tensors(tmp_path / "w.safetensors", nn.Linear(3, 2).state_dict())
    with pytest.raises(InputError, match="another architecture than Linear"):
        load_weights(nn.Linear(4, 2), tmp_path / "w.safetensors")


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
