"""Image folders and MedMNIST files."""

import numpy as np
import pytest
from PIL import Image

from retrace_pl.data import ImageFolderSource, MedMNISTSource, SourceImages, UnlearningDataModule
from retrace_pl.data.pixels import ArrayImages
from retrace_pl.errors import InputError


def _write_class(folder, count, level, suffix=".png"):
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (10, 8), (level, index, 0)).save(folder / f"{index:03}{suffix}")


def _folder(root, counts=(6, 4)):
    for index, count in enumerate(counts):
        _write_class(root / f"class-{index}", count, 50 * index)
    return root


def _arrays(train=(30, 30), val=(5, 5), test=(8, 8), shape=(28, 28, 3), column=True):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, counts in (("train", train), ("val", val), ("test", test)):
        if counts:
            labels = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
            arrays[f"{name}_images"] = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
            arrays[f"{name}_labels"] = labels[:, None] if column else labels
    return arrays


def _npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


# --- Image folders -----------------------------------------------------------------------------------------------


def test_one_folder_per_class(tmp_path, monkeypatch):
    _folder(tmp_path / "images")
    (tmp_path / "images" / "class-0" / "notes.txt").touch()
    (tmp_path / "images" / ".hidden").mkdir()
    monkeypatch.setenv("IMAGES", str(tmp_path))
    source = ImageFolderSource("${IMAGES}/images")
    opened = source.open()
    assert source.title == "images"
    assert opened.classes == ("class-0", "class-1")
    assert opened.test is None
    assert opened.train.labels.tolist() == [0] * 6 + [1] * 4
    assert opened.train.image(7).getpixel((0, 0)) == (50, 1, 0)


def test_train_and_test_folders(tmp_path):
    _folder(tmp_path / "train")
    _write_class(tmp_path / "test" / "class-1", 3, 99, ".jpg")
    opened = ImageFolderSource(str(tmp_path)).open()
    assert opened.classes == ("class-0", "class-1")
    assert opened.test.labels.tolist() == [1, 1, 1]
    _write_class(tmp_path / "test" / "unseen", 1, 0)
    with pytest.raises(InputError, match="has a class 'unseen' that the train folder does not have"):
        ImageFolderSource(str(tmp_path)).open()


def test_a_class_may_be_called_train(tmp_path):
    _write_class(tmp_path / "train", 3, 0)
    _write_class(tmp_path / "plane", 3, 0)
    assert ImageFolderSource(str(tmp_path)).open().classes == ("plane", "train")


def test_photographs_are_turned_upright(tmp_path):
    _folder(tmp_path)
    photo = Image.new("RGB", (4, 2), "white")
    photo.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    photo.save(tmp_path / "class-0" / "000.png", exif=exif)
    upright = ImageFolderSource(str(tmp_path)).open().train.image(0)
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (0, 0, 0)


def test_folders_without_images(tmp_path):
    with pytest.raises(InputError, match=r"root: the folder .*missing does not exist"):
        ImageFolderSource(str(tmp_path / "missing")).open()
    with pytest.raises(InputError, match="has no folders; put the images of each class into a folder of its own"):
        ImageFolderSource(str(tmp_path)).open()
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"the class folders of .* hold no images"):
        ImageFolderSource(str(tmp_path)).open()


def test_a_corrupt_or_transparent_image_is_named(tmp_path):
    _folder(tmp_path, (20, 20))
    bad = tmp_path / "class-0" / "005.png"
    whole = bad.read_bytes()
    everything = {"train_size": 30, "test_size": 2, "evaluator_size": 4, "public_size": 2}  # of class 0

    def setup():
        UnlearningDataModule(ImageFolderSource(str(tmp_path)), forget_class="class-1", **everything).setup()

    for content in (b"no image", whole[: len(whole) // 2], b""):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"class-0/005.png is no readable image; repair or remove it") as caught:
            setup()
        assert "\n" not in str(caught.value)
    Image.new("RGBA", (8, 8)).save(bad)
    with pytest.raises(InputError, match=r"class-0/005.png has 4 channels \(RGBA\) with transparent pixels"):
        setup()


# --- MedMNIST files ----------------------------------------------------------------------------------------------


def test_medmnist_partitions(tmp_path):
    arrays = _arrays()
    source = MedMNISTSource(_npz(tmp_path / "pathmnist.npz", **arrays), class_names=["adipose", "mucus"])
    opened = source.open()
    assert source.title == "pathmnist"
    assert opened.classes == ("adipose", "mucus")
    assert len(opened.train.labels) == 70  # val joins train
    assert len(opened.test.labels) == 16
    assert np.array_equal(np.asarray(opened.train.image(61)), arrays["val_images"][1])
    module = UnlearningDataModule(source, forget_class="mucus")
    assert module.split("public").inputs.shape[1:] == (3, 32, 32)


def test_medmnist_greyscale_and_flat_labels(tmp_path):
    arrays = _arrays(val=None, test=None, shape=(28, 28), column=False)
    opened = MedMNISTSource(_npz(tmp_path / "x.npz", **arrays)).open()
    assert opened.classes == ("0", "1")
    assert opened.test is None
    assert opened.train.image(0).mode == "L"


def test_medmnist_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"path: the file .*missing.npz does not exist"):
        MedMNISTSource(str(tmp_path / "missing.npz")).open()
    with pytest.raises(InputError, match="has no train_images and train_labels; it has other"):
        MedMNISTSource(_npz(tmp_path / "other.npz", other=np.zeros(3))).open()
    with pytest.raises(InputError, match=r"class_names: 1 names for 2 classes; name every class"):
        MedMNISTSource(_npz(tmp_path / "x.npz", **_arrays()), ["only"]).open()
    with pytest.raises(InputError, match="the images have 2 channels, not 1 or 3"):
        MedMNISTSource(_npz(tmp_path / "x.npz", **_arrays(shape=(28, 28, 2)))).open()
    several = _arrays() | {"train_labels": np.zeros((60, 14), np.uint8)}
    with pytest.raises(InputError, match=r"train_labels must hold one whole number per image, not uint8 \(60, 14\)"):
        MedMNISTSource(_npz(tmp_path / "x.npz", **several)).open()
    fewer = _arrays() | {"train_labels": np.zeros(59, np.uint8)}
    with pytest.raises(InputError, match="train: 60 images but 59 labels; the file is corrupt"):
        MedMNISTSource(_npz(tmp_path / "x.npz", **fewer)).open()


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "pickle"])
def test_corrupt_medmnist_files(tmp_path, damage):
    file = tmp_path / "x.npz"
    _npz(file, **_arrays())
    content = file.read_bytes()
    if damage == "pickle":
        _npz(file, train_images=np.array([{}], dtype=object), train_labels=np.zeros(1))
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "noise": b"x" * 100, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"path: .*x.npz cannot be read as .npz; the file is corrupt") as caught:
        MedMNISTSource(str(file)).open()
    assert "\n" not in str(caught.value)


# --- Any source ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "the train partition of the data set is empty"),
        ([0, 2], "has label 2, outside the 2 classes"),
        ([-1], "label -1"),
    ],
)
def test_partitions_are_checked(labels, message):
    images = ArrayImages(np.zeros((len(labels), 4, 4), np.uint8), np.array(labels), "x")
    with pytest.raises(InputError, match=message):
        SourceImages(images, None, ("a", "b"))
