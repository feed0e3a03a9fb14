import numpy as np
import pytest
import torch
from PIL import Image

from retrace_pl.errors import InputError
from retrace_pl.external.images import read_images


def pictures(n=5, channels=None, seed=0):
    shape = (n, 12, 12) if channels is None else (n, 12, 12, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_a_registered_data_set():
    found = read_images("digits", "--public", 16, 1)
    assert len(found) == 1797
    assert found.classes == tuple("0123456789")
    assert found.inputs.shape == (1797, 1, 16, 16)
    without = read_images("digits", "--public", 16, 1, exclude=("3", "7"), limit=100, seed=1)
    assert len(without) == 100
    assert not torch.isin(without.labels, torch.tensor([3, 7])).any()
    again = read_images("digits", "--public", 16, 1, exclude=("3", "7"), limit=100, seed=1)
    assert torch.equal(again.inputs, without.inputs)


def test_folders_with_and_without_classes(tmp_path):
    for index, (folder, pixels) in enumerate(zip(["a", "b", "a"], pictures(3), strict=True)):
        (tmp_path / "classes" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "classes" / folder / f"{index}.png")
        Image.fromarray(pixels).save(tmp_path / "flat" / f"{index}.png")
    with_classes = read_images(str(tmp_path / "classes"), "--public", 12, 1)
    assert with_classes.classes == ("a", "b")
    assert with_classes.labels.tolist() == [0, 0, 1]
    flat = read_images(str(tmp_path / "flat"), "--public", 12, 1)
    assert flat.labels is None
    assert torch.equal(flat.records.pixels[:, 0], torch.from_numpy(pictures(3)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        read_images(str(tmp_path / "empty"), "--public", 12, 1)


@pytest.mark.parametrize("key", ["x", "images"])
@pytest.mark.parametrize("layout", ["grey", "last", "first", "floats"])
def test_arrays_of_every_layout(tmp_path, key, layout):
    colour = pictures(channels=3)
    arrays = {"grey": pictures(), "last": colour, "first": colour.transpose(0, 3, 1, 2), "floats": colour / 255.0}
    np.savez(tmp_path / "data.npz", **{key: arrays[layout]}, y=np.arange(5)[:, None])
    found = read_images(str(tmp_path / "data.npz"), "--public", 12, 1 if layout == "grey" else 3)
    expected = pictures()[:, None] if layout == "grey" else colour.transpose(0, 3, 1, 2)
    assert torch.equal(found.records.pixels, torch.from_numpy(expected))
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_pickled_array_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"--public: .*without pickles"):
        read_images(str(tmp_path / "data.npz"), "--public", 12, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": pictures()}, "no array x or images"),
        ({"images": pictures()[:0]}, r"no images in images, whose shape is \[0, 12, 12\]"),
        ({"x": np.float32(3)}, r"no images in x, whose shape is \[\]"),
        ({"x": pictures().astype(np.int32)}, "uint8"),
        ({"x": pictures() / 1.0}, r"\[0, 1\]"),
        ({"x": pictures(), "y": np.arange(4)}, "labels"),
        ({"x": pictures(), "y": np.array([0, 1, 2, 3, -1])}, "0 or more"),
        ({"x": pictures(), "y": np.linspace(0, 1, 5)}, "whole number"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_images(str(tmp_path / "data.npz"), "--public", 12, 1)


def test_names_that_are_none():
    with pytest.raises(InputError, match=r"--public: digit is no folder.*registered are: .*digits"):
        read_images("digit", "--public", 12, 1)
    with pytest.raises(InputError, match="no test partition"):
        read_images("digits:test", "--public", 12, 1)
    with pytest.raises(InputError, match=r"--deleted: .*\.npz does not exist"):
        read_images("missing.npz", "--deleted", 12, 1)
    with pytest.raises(InputError, match="no class bag"):
        read_images("digits", "--public", 12, 1, exclude=("bag",))


def test_classes_of_unlabelled_images_cannot_be_left_out(tmp_path):
    np.savez(tmp_path / "data.npz", x=pictures())
    with pytest.raises(InputError, match="no labels"):
        read_images(str(tmp_path / "data.npz"), "--public", 12, 1, exclude=("3",))


@pytest.mark.parametrize("name", ["news.jsonl", "news.parquet", "news"])
def test_texts_are_refused_by_what_they_are(tmp_path, name):
    path = tmp_path / name
    if not path.suffix:
        path.mkdir()
        (path / "train.parquet").write_bytes(b"PAR1")
    else:
        path.write_text("{}")
    with pytest.raises(InputError, match=r"--public: .* holds tables or texts"):
        read_images(str(path), "--public", 16, 1)
