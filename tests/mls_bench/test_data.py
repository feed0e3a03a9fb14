import gzip
import os

import numpy as np
import pytest
import torch

from retrace_pl.cli import main
from retrace_pl.data import HuggingFaceSource, TorchvisionSource
from retrace_pl.errors import InputError
from retrace_pl.mls_bench import data, run_setting
from retrace_pl.mls_bench.settings import TASKS, Limits

CIFAR10, CIFAR100, FMNIST = (TASKS[name] for name in ("resnet20-cifar10", "vgg16bn-cifar100", "mobilenetv2-fmnist"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path / "root"))
    monkeypatch.delenv("RETRACE_SHARED_DATA", raising=False)
    return tmp_path / "root"


def test_usual_places(root):
    for task in (CIFAR10, FMNIST):
        source = data.find_source(task)
        assert isinstance(source, TorchvisionSource)
        assert (source.name, source.root, source.download) == (task.data, str(root), True)
    hub = data.find_source(CIFAR100)
    assert isinstance(hub, HuggingFaceSource)
    assert (hub.path, hub.label_column) == (data.CIFAR100_HUB, "fine_label")


def test_archives_that_must_not_be_unpacked_where_they_are(root, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    raw = shared / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"labels"))
    monkeypatch.setenv("RETRACE_SHARED_DATA", str(shared))
    data.find_source(FMNIST)
    copied = root / "FashionMNIST" / "raw"
    assert [path.name for path in copied.iterdir()] == ["t10k-labels-idx1-ubyte.gz"]
    (copied / "t10k-labels-idx1-ubyte.gz").rename(copied / "t10k-labels-idx1-ubyte")
    data.find_source(FMNIST)  # unpacked already
    assert [path.name for path in copied.iterdir()] == ["t10k-labels-idx1-ubyte"]
    assert sorted(os.listdir(raw)) == ["t10k-labels-idx1-ubyte.gz"]


def test_a_folder_of_parquet_files_serves_any_set(root, tmp_path):
    (tmp_path / "train.parquet").touch()
    assert isinstance(data.find_source(CIFAR10, tmp_path), HuggingFaceSource)
    assert data.find_source(CIFAR100, tmp_path).label_column == "fine_label"


def test_data_that_is_not_there(root, tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="--data"):
        data.find_source(CIFAR10, tmp_path / "gone")

    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", refuse)
    command = ["mls-bench", "--method", "scrub", "--setting", "resnet20-cifar10", "--output", str(tmp_path), "--quiet"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--data" in error
    assert error.count("\n") == 1


def test_a_draw_per_class(digits):
    found = data.load_data(TASKS["tinynet-digits"], Limits(train_limit=7, test_limit=4), 0)
    assert torch.bincount(found.train.labels).tolist() == [7] * 10
    assert torch.bincount(found.test.labels).tolist() == [4] * 10
    again = data.load_data(TASKS["tinynet-digits"], Limits(train_limit=7, test_limit=4), 0)
    other = data.load_data(TASKS["tinynet-digits"], Limits(train_limit=7, test_limit=4), 1)
    assert found.digest == again.digest != other.digest
    assert found.train.pixels.shape == (70, 3, 32, 32)
    whole = data.load_data(TASKS["tinynet-digits"], Limits(), 0)
    assert len(whole.train) + len(whole.test) == 1797
    assert len(whole.retained(whole.train, 3)) + len(whole.of_class(whole.train, 3)) == len(whole.train)


def test_the_first_classes_alone(digits):
    found = data.load_data(TASKS["tinynet-digits"], Limits(train_limit=7, test_limit=4, classes=3), 0)
    assert found.num_classes == 3
    assert torch.bincount(found.train.labels).tolist() == [7] * 3
    assert torch.bincount(found.test.labels).tolist() == [4] * 3
    assert found.retained(found.train, 0).labels.unique().tolist() == [1, 2]
    with pytest.raises(InputError, match="--classes is 11"):
        data.load_data(TASKS["tinynet-digits"], Limits(classes=11), 0)


def test_data_of_other_classes(digits):
    with pytest.raises(InputError, match="10 classes"):
        data.load_data(CIFAR100, Limits(), 0)


@pytest.mark.shared_data
def test_fashion_mnist_for_real(shared_data, root, tmp_path, monkeypatch):
    if not (shared_data / "FashionMNIST" / "raw").is_dir():
        pytest.skip("RETRACE_SHARED_DATA holds no Fashion-MNIST")
    monkeypatch.setenv("RETRACE_SHARED_DATA", str(shared_data))
    limits = {"train_limit": 8, "test_limit": 8, "pretrain_epochs": 1, "unlearn_epochs": 1, "batch_size": 16}
    options = {"preset": "smoke", "output": tmp_path / "out", **limits}
    result = run_setting("mobilenetv2-fmnist-class9", "retain_finetune", reference=False, **options)
    assert result["sizes"] == {"retain_train": 72, "forget_train": 8, "retain_test": 72, "forget_test": 8}
    assert 0 <= result["retain_acc"] <= 1
    assert np.isfinite(result["two_sided_score"])


@pytest.mark.shared_data
def test_cifar_100_for_real(shared_data, monkeypatch):
    if not any((shared_data / "cifar100").glob("*.parquet")):
        pytest.skip("RETRACE_SHARED_DATA holds no CIFAR-100")
    monkeypatch.setenv("RETRACE_SHARED_DATA", str(shared_data))
    found = data.load_data(CIFAR100, Limits(train_limit=2, test_limit=1), 0)
    assert torch.bincount(found.train.labels).tolist() == [2] * 100
    assert torch.bincount(found.test.labels).tolist() == [1] * 100
