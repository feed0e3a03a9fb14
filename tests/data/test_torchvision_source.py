import inspect
import json

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from retrace_pl.data import TorchvisionSource, UnlearningDataModule
from retrace_pl.data.sources.torchvision import _CLASSIFICATION
from retrace_pl.errors import InputError


def _write_idx(file, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_fashion(tmp_path):
    """The layout of the unpacked Fashion-MNIST with 200 + 50 random images."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 200), ("t10k", 50)):
        _write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        _write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


@pytest.fixture
def small_food(tmp_path):
    """The layout of Food-101 with three dishes."""
    food = tmp_path / "food-101"
    (food / "meta").mkdir(parents=True)
    lists = {"train": {}, "test": {}}
    for place, dish in enumerate(("apple_pie", "baklava", "ramen")):
        (food / "images" / dish).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (60, 40), (10 * index, 80 * place, 0)).save(food / "images" / dish / f"{index}.jpg")
        lists["train"][dish] = [f"{dish}/{index}" for index in range(15)]
        lists["test"][dish] = [f"{dish}/{index}" for index in range(15, 20)]
    for name, content in lists.items():
        (food / "meta" / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_a_data_set_with_train_switch(small_fashion):
    source = TorchvisionSource("FashionMNIST", str(small_fashion))
    opened = source.open()
    assert source.title == "FashionMNIST"
    assert opened.classes[8] == "Bag"
    assert opened.train.labels.tolist() == [index % 10 for index in range(200)]
    assert len(opened.test.labels) == 50
    reference = datasets.FashionMNIST(str(small_fashion), train=False)
    assert np.array_equal(np.asarray(opened.test.image(7)), reference.data[7].numpy())
    module = UnlearningDataModule(source, forget_class="bag", channels=1)
    assert len(module.split("test")) == 50
    assert module.deleted_classes == (8,)


def test_a_data_set_with_split_name_reads_labels_without_decoding(small_food, monkeypatch):
    def fail(self):
        raise AssertionError("an image was decoded to learn its label")

    source = TorchvisionSource("Food101", str(small_food))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", fail)
        opened = source.open()
    assert opened.classes == ("apple_pie", "baklava", "ramen")
    assert opened.train.labels.tolist() == [0] * 15 + [1] * 15 + [2] * 15
    assert opened.test.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    module = UnlearningDataModule(source, forget_class="ramen", image_size=16, train_size=30)
    assert module.split("forget").inputs[:, 1].mean().item() == pytest.approx(160 / 255, abs=0.02)


def test_a_data_set_whose_first_split_is_called_trainval(small_fashion, monkeypatch):
    class Pets:
        def __init__(self, root, split="trainval", download=False):
            if split not in ("trainval", "test"):
                raise ValueError(f"Unknown value '{split}' for argument split.")
            self._labels = [0, 1] if split == "trainval" else [1]
            self.classes = [("cat", "kitty"), "dog"]

    monkeypatch.setattr(datasets, "OxfordIIITPet", Pets)
    opened = TorchvisionSource("OxfordIIITPet", str(small_fashion)).open()
    assert opened.train.labels.tolist() == [0, 1]
    assert opened.test.labels.tolist() == [1]
    assert opened.classes == ("cat/kitty", "dog")


@pytest.mark.parametrize("name", ["FashionMNST", "ImageFolder", "vision", "__all__"])
def test_a_name_that_is_no_data_set_lists_those_that_are(tmp_path, name):
    with pytest.raises(
        InputError, match=r"no classification data set '.*'; choose from CIFAR10, .*FashionMNIST, .*Food101"
    ):
        TorchvisionSource(name, str(tmp_path)).open()


def test_data_without_classes(tmp_path, monkeypatch):
    class Pairs:
        def __init__(self, root, train=True):
            self.targets = np.zeros((5, 2))

    monkeypatch.setattr(datasets, "CIFAR10", Pairs)
    with pytest.raises(InputError, match="torchvision's CIFAR10 does not give one class per image"):
        TorchvisionSource("CIFAR10", str(tmp_path)).open()


def test_missing_data(tmp_path):
    with pytest.raises(InputError, match=r"root: the folder .*missing does not exist; .* download: true"):
        TorchvisionSource("FashionMNIST", str(tmp_path / "missing")).open()
    for name in ("FashionMNIST", "CIFAR10", "Food101", "OxfordIIITPet"):
        with pytest.raises(InputError, match=f"root: {name} is not under .*; .* set download: true"):
            TorchvisionSource(name, str(tmp_path)).open()


def test_corrupt_files(small_fashion):
    raw = small_fashion / "FashionMNIST" / "raw"
    images = raw / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    for content in (whole[:5000], b"not an idx file", b""):
        images.write_bytes(content)
        with pytest.raises(InputError, match=r"FashionMNIST under .* cannot be read; the files are corrupt") as caught:
            TorchvisionSource("FashionMNIST", str(small_fashion)).open()
        assert "\n" not in str(caught.value)


def test_a_download_without_network(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    for name in ("FashionMNIST", "CIFAR10"):
        with pytest.raises(InputError, match=f"{name} cannot be downloaded to .*; check the network"):
            TorchvisionSource(name, str(tmp_path), download=True).open()


def test_a_root_that_cannot_be_written_to(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("torchvision.datasets.mnist.os.makedirs", fail)
    with pytest.raises(InputError, match="cannot be written to, and download: true unpacks FashionMNIST there; copy"):
        TorchvisionSource("FashionMNIST", str(tmp_path), download=True).open()


def test_every_name_on_offer_is_a_torchvision_data_set_with_partitions():
    for name in _CLASSIFICATION:
        assert {"train", "split"} & set(inspect.signature(getattr(datasets, name)).parameters)
