import errno
import os

import pytest
import torch

from retrace_pl.errors import RunError
from retrace_pl.files import atomic_path, read_json, read_tensors, remove_parts, write_json, write_tensors


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


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "make the file system writable"),
        (errno.EACCES, "get permission"),
        (errno.EFBIG, "raise the limit on the size of a file"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_cannot_be_written_has_its_remedy(tmp_path, number, remedy):
    with pytest.raises(RunError, match=f"x: {os.strerror(number)}; {remedy} .*--output"), atomic_path(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_what_killed_writers_leave_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "stages").mkdir()
    writer = atomic_path(tmp_path / "stages" / "a.json")
    left = writer.__enter__()  # a writer that is never heard of again
    kept = [tmp_path / ".hidden", tmp_path / "song.part", tmp_path / "stages" / "a.json"]
    for path in kept:
        path.write_text("kept")
    remove_parts(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in kept)


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


def test_missing_files_say_what_to_run(tmp_path):
    for read in (read_json, read_tensors):
        with pytest.raises(RunError, match="run the earlier stages"):
            read(tmp_path / "none")
