import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from retrace_pl.data import HuggingFaceSource, UnlearningDataModule
from retrace_pl.errors import InputError

NAMES = ["apple", "bear", "cup"]


def _images(count, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def _write(folder, name="train", count=30, **columns):
    """A parquet file as the hub has them; columns are (feature, values)."""
    if not columns:
        columns = {
            "img": (ImageFeature(), _images(count, len(name))),
            "fine_label": (ClassLabel(names=NAMES), [index % 3 for index in range(count)]),
        }
    features = Features({key: feature for key, (feature, _) in columns.items()})
    data = Dataset.from_dict({key: values for key, (_, values) in columns.items()}, features)
    folder.mkdir(exist_ok=True)
    data.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def test_a_folder_of_parquet_files(tmp_path, monkeypatch):
    folder = _write(tmp_path / "cifar")
    _write(folder, "test", 12)
    monkeypatch.setenv("DATA", str(tmp_path))
    source = HuggingFaceSource("${DATA}/cifar")
    opened = source.open()
    assert source.title == "cifar"
    assert opened.classes == tuple(NAMES)
    assert opened.train.labels.tolist() == [index % 3 for index in range(30)]
    assert opened.test.labels.tolist() == [index % 3 for index in range(12)]
    assert np.array_equal(np.asarray(opened.train.image(17)), np.asarray(_images(30, 5)[17]))
    module = UnlearningDataModule(source, forget_class="bear", image_size=8)
    assert len(module.split("test")) == 12
    assert module.class_counts()["forget"] == {"apple": 0, "bear": 6, "cup": 0}


def test_a_validation_partition_serves_as_test(tmp_path):
    _write(_write(tmp_path / "x"), "validation", 6)
    assert len(HuggingFaceSource(str(tmp_path / "x")).open().test.labels) == 6


def test_an_image_folder(tmp_path):
    for partition, count in (("train", 4), ("test", 2)):
        for name in NAMES:
            (tmp_path / "x" / partition / name).mkdir(parents=True)
            for index, image in enumerate(_images(count)):
                image.save(tmp_path / "x" / partition / name / f"{index}.png")
    opened = HuggingFaceSource(str(tmp_path / "x")).open()
    assert opened.classes == tuple(NAMES)
    assert np.bincount(opened.train.labels).tolist() == [4, 4, 4]
    assert np.bincount(opened.test.labels).tolist() == [2, 2, 2]
    assert opened.train.image(0).size == (8, 8)


def test_plain_parquet_with_image_bytes_and_class_names(tmp_path):
    (tmp_path / "x").mkdir()
    images = _images(6)
    table = pa.table({"image": [_png(image) for image in images], "label": ["cup", "bear"] * 3})
    pq.write_table(table, tmp_path / "x" / "train.parquet")
    opened = HuggingFaceSource(str(tmp_path / "x")).open()
    assert opened.classes == ("bear", "cup")
    assert opened.train.labels.tolist() == [1, 0] * 3
    assert opened.test is None
    assert np.array_equal(np.asarray(opened.train.image(4)), np.asarray(images[4]))


def test_columns_can_be_named(tmp_path):
    folder = _write(
        tmp_path / "x",
        left=(ImageFeature(), _images(4, 1)),
        right=(ImageFeature(), _images(4, 2)),
        kind=(Value("int64"), [7, 3, 3, 7]),
        fine_label=(ClassLabel(names=NAMES), [0, 1, 2, 0]),
    )
    with pytest.raises(
        InputError, match=r"image_column: cannot tell which column of .* left \(Image\), right \(Image\)"
    ):
        HuggingFaceSource(str(folder)).open()
    opened = HuggingFaceSource(str(folder), image_column="right", label_column="kind").open()
    assert opened.classes == ("3", "7")
    assert opened.train.labels.tolist() == [1, 0, 0, 1]
    assert np.array_equal(np.asarray(opened.train.image(1)), np.asarray(_images(4, 2)[1]))
    with pytest.raises(
        InputError, match=r"label_column: .* has no column 'sort'; its columns are left \(Image\), .*kind"
    ):
        HuggingFaceSource(str(folder), image_column="right", label_column="sort").open()


def test_columns_that_cannot_be_told_apart(tmp_path):
    image = (ImageFeature(), _images(2))
    folder = _write(tmp_path / "x", img=image, weight=(Value("float32"), [0.5, 1.5]))
    with pytest.raises(InputError, match=r"label_column: cannot tell .* img \(Image\), weight \(Value\)"):
        HuggingFaceSource(str(folder)).open()
    with pytest.raises(InputError, match="label_column: 'weight' does not hold one class per image"):
        HuggingFaceSource(str(folder), label_column="weight").open()
    words = _write(tmp_path / "words", text=(Value("string"), ["a", "b"]), label=(Value("int64"), [0, 1]))
    with pytest.raises(InputError, match="image_column: cannot tell which column"):
        HuggingFaceSource(str(words)).open()


def test_two_class_columns_take_the_usual_name(tmp_path):
    coarse = (ClassLabel(names=["x", "y"]), [0, 1])
    fine = (ClassLabel(names=NAMES), [2, 1])
    folder = _write(tmp_path / "x", img=(ImageFeature(), _images(2)), coarse_label=coarse, fine_label=fine)
    assert HuggingFaceSource(str(folder)).open().classes == tuple(NAMES)


def test_unlabelled_test_images_and_missing_ones(tmp_path):
    label = ClassLabel(names=NAMES)
    folder = _write(tmp_path / "x", img=(ImageFeature(), [*_images(2), None]), label=(label, [0, 1, 2]))
    with pytest.raises(InputError, match="image_column: 'img' holds no image in record 2"):
        HuggingFaceSource(str(folder)).open().train.image(2)
    _write(folder, "test", img=(ImageFeature(), _images(2)), label=(label, [-1, -1]))
    with pytest.raises(InputError, match="the test partition has label -1, outside the 3 classes"):
        HuggingFaceSource(str(folder)).open()


def test_records_without_a_label(tmp_path):
    folder = _write(tmp_path / "x", img=(ImageFeature(), _images(2)), label=(ClassLabel(names=NAMES), [1, None]))
    with pytest.raises(InputError, match="label_column: 'label' is empty in record 1; remove unlabelled records"):
        HuggingFaceSource(str(folder)).open()


def test_a_class_that_only_the_test_partition_has(tmp_path):
    folder = _write(tmp_path / "x", img=(ImageFeature(), _images(2)), label=(Value("string"), ["a", "b"]))
    _write(folder, "test", img=(ImageFeature(), _images(1)), label=(Value("string"), ["c"]))
    with pytest.raises(InputError, match="the test partition has a class 'c' that the train partition does not have"):
        HuggingFaceSource(str(folder)).open()


def test_folders_that_cannot_be_read(tmp_path):
    for path in (str(tmp_path / "missing"), "./missing", "a/b/c"):
        with pytest.raises(InputError, match=r"path: .* does not exist"):
            HuggingFaceSource(path).open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be read as a data set; its files are corrupt or of no known layout"):
        HuggingFaceSource(str(tmp_path / "empty")).open()


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_corrupt_parquet(tmp_path, damage):
    folder = _write(tmp_path / "x")
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "noise": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"path: .* cannot be read as a data set; its files are corrupt") as caught:
        HuggingFaceSource(str(folder)).open()
    assert "\n" not in str(caught.value)


def test_a_corrupt_image_names_its_record(tmp_path):
    (tmp_path / "x").mkdir()
    content = [_png(image) for image in _images(10)]
    content[6] = content[6][:40]
    pq.write_table(pa.table({"image": content, "label": [0, 1] * 5}), tmp_path / "x" / "train.parquet")
    module = UnlearningDataModule(
        HuggingFaceSource(str(tmp_path / "x")), 0, train_size=6, public_size=1, evaluator_size=1, test_size=2
    )
    with pytest.raises(InputError, match="the image of record 6 cannot be read; the data is corrupt"):
        module.setup()


def test_a_hub_that_cannot_be_reached():
    # The test suite is offline (HF_HUB_OFFLINE=1).
    with pytest.raises(InputError, match=r"path: owner/name is no folder here, and the Hugging Face hub") as caught:
        HuggingFaceSource("owner/name").open()
    assert "\n" not in str(caught.value)
    assert "HF_HUB_OFFLINE" in str(caught.value)
