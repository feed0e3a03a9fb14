import json
import math

import pytest
import torch

from retrace_pl.errors import InputError, RunError
from retrace_pl.mls_bench import find_setting, harness, prepare_benchmark, run_setting
from retrace_pl.mls_bench.data import UnlearningData
from retrace_pl.mls_bench.scores import NOT_FINITE, NOT_FORGOTTEN
from retrace_pl.mls_bench.settings import TASKS, Limits, find_preset
from retrace_pl.models import MobileNetV2
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.unlearning import EUk, NegativeGradient

from .conftest import TINY


@pytest.fixture
def trainings(monkeypatch):
    """Names of everything that was trained."""
    names = []
    real = harness.fit

    def fit(*args, name, **options):
        names.append(name)
        return real(*args, name=name, **options)

    monkeypatch.setattr(harness, "fit", fit)
    return names


def test_settings():
    assert find_setting("mobilenetv2-fmnist").name == "mobilenetv2-fmnist-class0"
    found = find_setting("vgg16bn-cifar100-class99")
    assert (found.forget_class, found.task.data) == (99, "CIFAR100")
    assert find_setting("mobilenetv2-fmnist-class7").task.model is MobileNetV2
    assert find_preset("full", found.task) == Limits(80, 20, None, None, 128)
    for name in ("resnet20-cifar10-class10", "resnet20", "resnet20-cifar10-classx", ""):
        with pytest.raises(InputError, match="--setting"):
            find_setting(name)


def test_a_run_trains_once_and_reuses_files(digits, tmp_path, trainings):
    options = {"preset": "smoke", "output": tmp_path, **TINY, "pretrain_epochs": 2}
    first = run_setting(digits, "scrub", **options)
    assert trainings == ["original", "retrained-class3", "scrub-class3"]
    second = run_setting(digits, "scrub", **options)
    assert len(trainings) == 3
    assert first == second
    run_setting(digits, "retain_finetune", **options)
    assert trainings[3:] == ["retain_finetune-class3"]
    run_setting(digits.replace("class3", "class4"), "identity", **options)  # f+ does not depend on the class
    assert trainings[4:] == ["retrained-class4", "identity-class4"]
    run_setting(digits, "scrub", **{**options, "seed": 7})
    assert trainings[6:] == ["original", "retrained-class3", "scrub-class3"]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_result(benchmark_digits):
    result = benchmark_digits.run("identity")
    assert result["setting"] == "tinynet-digits-class3"
    assert (result["method"], result["preset"], result["seed"], result["forget_class"]) == ("identity", "smoke", 42, 3)
    assert {name: result[name] for name in result["original"]} == pytest.approx(result["original"])
    assert result["problems"] == [NOT_FORGOTTEN]
    assert not result["valid"]
    assert result["sizes"] == {"retain_train": 540, "forget_train": 60, "retain_test": 270, "forget_test": 30}
    assert result["gap_to_retrain"]["forget_acc"] == pytest.approx(
        result["forget_acc"] - result["retrained"]["forget_acc"]
    )
    assert result["retrained"]["forget_acc"] == 0
    assert result["original"]["retain_acc"] > 0.5
    assert result["pretraining"]["lr"] == 0.1
    assert result["overrides"]["unlearn_epochs"] == 1
    assert json.loads(json.dumps(result)) == result
    assert benchmark_digits.run("retrain")["gap_to_retrain"] == {"retain_acc": 0, "forget_acc": 0, "forget_mia_auc": 0}


def test_without_the_reference(benchmark_digits, trainings):
    benchmark_digits.folder.path("retrained-class3.safetensors").unlink()
    result = benchmark_digits.run("identity", reference=False)
    assert trainings == ["identity-class3"]
    assert result["gap_to_retrain"] is None
    assert result["retrained"] is None


def test_a_file_that_knows_nothing_of_the_package(benchmark_digits, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import copy\nimport torch\nimport torch.nn.functional as F\n"
        "class UnlearningMethod:\n"
        "    teacher = None\n"
        "    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):\n"
        "        if self.teacher is None:\n"
        "            self.teacher = copy.deepcopy(model).eval()\n"
        "        x, y = retain_batch\n"
        "        u, _ = forget_batch\n"
        "        assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]['lr'] == 0.001\n"
        "        assert model.training\n"
        "        logits = model(torch.cat([x, u]))\n"
        "        flat = torch.cat([p.view(-1) for p in model.parameters()])\n"
        "        loss = F.cross_entropy(logits[:len(x)], y) - 0.1 * logits[len(x):].log_softmax(1).mean()\n"
        "        loss = loss + 0 * flat.sum()\n"
        "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n"
        "        return {'loss': loss.item(), 'step': step}\n"
    )
    result = benchmark_digits.run(str(path))
    assert result["method"] == "mine"
    assert result["unlearning"] == {
        "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "strength": 1.0, "epochs": 1, "batch_size": 64
    }  # fmt: skip
    assert result["retain_acc"] != result["original"]["retain_acc"]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_models_of_another_precision_are_measured(digits, trained, precision):
    settings = TrainerSettings(accelerator="cpu", precision=precision)
    benchmark = prepare_benchmark(
        digits, preset="smoke", output=trained, trainer=settings, **{**TINY, "pretrain_epochs": 1}
    )
    assert 0 <= benchmark.run("negative_gradient", reference=False)["retain_acc"] <= 1


def test_runs_do_not_share_their_place(benchmark_digits, trainings, tmp_path):
    file = tmp_path / "retrained.py"  # as the reference is called
    file.write_text("class UnlearningMethod:\n    def unlearn_step(self, *batches):\n        return {'loss': 0.0}\n")
    benchmark_digits.run("cf_k")
    benchmark_digits.run("cf_k", own_settings=True)
    benchmark_digits.run(str(file))
    names = [*trainings, "original", "retrained-class3"]
    assert len(set(names)) == 5
    assert not [(a, b) for a in names for b in names if a.startswith(f"{b}-")], "checkpoints are found by this prefix"


def test_random_teachers_and_fresh_weights_follow_the_seed_of_the_run(digits, tmp_path, monkeypatch):
    seeds = []

    def unlearnt(self, plug, rerun):
        seeds.append(plug.method.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.Benchmark, "_unlearnt", unlearnt)
    monkeypatch.setattr(harness.Benchmark, "measured", lambda self, name, model: None)
    for seed, method in ((1, "bad_teacher"), (1, "bad_teacher"), (2, "bad_teacher"), (2, EUk(seed=5))):
        with pytest.raises(KeyboardInterrupt):
            run_setting(digits, method, preset="smoke", seed=seed, output=tmp_path, **TINY)
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[3] == 5, "what the caller chose stays"


class Explodes:
    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        return {"loss": float("nan")}


def test_a_run_that_diverges_is_a_row(benchmark_digits):
    result = benchmark_digits.run(Explodes())
    assert result["problems"] == [NOT_FINITE]
    assert not result["valid"]
    assert "diverged" in result["error"]
    assert math.isnan(result["retain_acc"])
    assert math.isnan(result["mls_bench_compatible"]["unlearn_score"])


def test_a_run_that_cannot_start_is_no_divergence(benchmark_digits, monkeypatch):
    def fit(*args, **options):
        raise RunError("last.ckpt cannot be read")

    monkeypatch.setattr(harness, "fit", fit)
    with pytest.raises(RunError, match="cannot be read"):
        benchmark_digits.run("scrub")


def test_objects_are_never_taken_from_a_file(benchmark_digits, trainings):
    for _ in range(2):
        benchmark_digits.run(NegativeGradient(form="mls_bench"))
    assert trainings.count("NegativeGradient-class3") == 2


def test_an_interrupted_run_continues_and_ends_the_same(digits, trained, monkeypatch):
    cut = prepare_benchmark(digits, output=trained, preset="smoke", **{**TINY, "unlearn_epochs": 3})
    expected = cut.run("negative_gradient", reference=False)
    epochs = []
    step = NegativeGradient.unlearn_step

    def interrupting(self, model, retain, forget, optimizer, number, epoch):
        epochs.append(epoch)
        if epoch == 1 and epochs.count(1) == 1:
            raise KeyboardInterrupt
        return step(self, model, retain, forget, optimizer, number, epoch)

    monkeypatch.setattr(NegativeGradient, "unlearn_step", interrupting)
    with pytest.raises(KeyboardInterrupt):
        cut.run("negative_gradient", reference=False, rerun=True)
    seen = len(epochs)
    resumed = cut.run("negative_gradient", reference=False)
    assert min(epochs[seen:]) == 1, "the finished epoch is not done again"
    for name in ("retain_acc", "forget_acc", "forget_mia_auc"):
        assert resumed[name] == pytest.approx(expected[name], abs=1e-6)


def test_one_epoch_is_one_pass_over_retain_with_forget_cycled(benchmark_digits):
    module = UnlearningData(benchmark_digits.data, 3, 40, 0)
    batches = [batch for batch, _, _ in module.train_dataloader()]
    retain = torch.cat([batch["retain"][1] for batch in batches])
    assert len(retain) == 540
    assert not bool((retain == 3).any())
    assert all(bool((batch["forget"][1] == 3).all()) for batch in batches)
    assert [len(batch["forget"][1]) for batch in batches] == [40, 20] * 7
    assert batches[0]["retain"][0].shape == (40, 3, 32, 32)


def test_limits_and_seeds_that_cannot_be(digits, tmp_path):
    for bad in (
        {"train_limit": 0},
        {"classes": 1},
        {"classes": 3},
        {"pretrain_lr": 0.0},
        {"batch_size": 1},
        {"seed": -1},
        {"preset": "huge"},
    ):
        with pytest.raises(InputError, match="--"):
            prepare_benchmark(digits, **{"preset": "smoke", "output": tmp_path, **bad})


def test_the_published_models_and_sets():
    assert {name: (task.data, task.num_classes) for name, task in TASKS.items()} == {
        "resnet20-cifar10": ("CIFAR10", 10),
        "vgg16bn-cifar100": ("CIFAR100", 100),
        "mobilenetv2-fmnist": ("FashionMNIST", 10),
    }
