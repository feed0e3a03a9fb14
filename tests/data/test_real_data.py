"""Fashion-MNIST and CIFAR-100 through the ordinary loading code, offline."""

import shutil
import time

import pytest

from retrace_pl.data import HuggingFaceSource, TorchvisionSource, UnlearningDataModule

pytestmark = pytest.mark.shared_data


def test_fashion_mnist(shared_data, tmp_path):
    shutil.copytree(shared_data / "FashionMNIST", tmp_path / "FashionMNIST")
    source = TorchvisionSource("FashionMNIST", str(tmp_path), download=True)
    module = UnlearningDataModule(
        source, forget_class="Bag", train_size=2000, public_size=900, evaluator_size=500, test_size=1000, channels=1
    )
    start = time.perf_counter()
    module.setup()
    assert time.perf_counter() - start < 30  # unpacks 55 MB; takes 2 s on an idle core
    assert module.class_counts()["train"] == dict.fromkeys(module.classes, 200)
    assert module.class_counts()["public"] == {name: (0 if name == "Bag" else 100) for name in module.classes}
    assert module.class_counts()["test"] == dict.fromkeys(module.classes, 100)
    assert module.split("forget").inputs.shape == (200, 1, 32, 32)
    assert 0.3 < module.split("forget").inputs.mean().item() < 0.4  # bags are bright: 0.354 over the whole class


def test_cifar100(shared_data, monkeypatch):
    monkeypatch.setenv("RETRACE_SHARED_DATA", str(shared_data))
    module = UnlearningDataModule(
        HuggingFaceSource("${RETRACE_SHARED_DATA}/cifar100"),
        forget_class="apple",
        train_size=1000,
        public_size=495,
        evaluator_size=500,
        test_size=500,
    )
    assert module.num_classes == 100
    assert module.deleted_classes == (0,)
    counts = module.class_counts()
    assert set(counts["train"].values()) == {10}
    assert counts["public"]["apple"] == 0
    inputs = module.split("train").inputs
    assert inputs.shape == (1000, 3, 32, 32)
    mean = inputs.mean(dim=(0, 2, 3)).tolist()  # of the whole set: 0.507, 0.487, 0.441
    assert mean == pytest.approx([0.507, 0.487, 0.441], abs=0.03)
