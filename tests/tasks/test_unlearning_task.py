"""UnlearningTask on a data module of a few random vectors: hooks, stop, failures, checkpoints, exact resume."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from retrace_pl.errors import InputError, RunError
from retrace_pl.tasks.unlearning import UnlearningTask
from retrace_pl.unlearning import (
    GradientAscent,
    Identity,
    NegativeGradient,
    RetainFineTune,
    Retrain,
    UnlearningMethod,
)

FEATURES, CLASSES = 5, 3


class Data(LightningDataModule):
    """32 retained records (classes 0 and 1) and 8 to forget (class 2), well apart, in batches of 8."""

    def __init__(self, streams=("retain", "forget")):
        super().__init__()
        self.streams = streams
        generator = torch.Generator().manual_seed(0)
        self.sets = {}
        for name, labels in {"retain": torch.arange(32) % 2, "forget": torch.full((8,), 2)}.items():
            inputs = torch.randn(len(labels), FEATURES, generator=generator) * 0.3
            inputs[torch.arange(len(labels)), labels] += 2
            self.sets[name] = TensorDataset(inputs, labels)

    def train_dataloader(self):
        loaders = {name: DataLoader(self.sets[name], batch_size=8) for name in self.streams}
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self):
        return [DataLoader(self.sets["retain"], batch_size=16), DataLoader(self.sets["forget"], batch_size=16)]


def network(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    sets = Data().sets
    inputs = torch.cat([sets["retain"].tensors[0], sets["forget"].tensors[0]])
    labels = torch.cat([sets["retain"].tensors[1], sets["forget"].tensors[1]])
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


def trainer(epochs=1, **options):
    defaults = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**defaults | options)


def run(method, epochs=1, data=None, model=None, **options):
    task = UnlearningTask(model or network(), method, CLASSES, seed=1)
    engine = trainer(epochs, **options)
    engine.fit(task, datamodule=data or Data())
    return task, engine


def weights(task):
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Recorder(UnlearningMethod):
    """Records every call; its steps do nothing."""

    def __init__(self, stop_at=None, **settings):
        super().__init__(**settings)
        self.calls, self.stop_at = [], stop_at

    def prepare(self, model):
        self.calls.append("prepare")
        assert not model.training

    def edit(self, model, retain_loader, forget_loader):
        sizes = [sum(len(labels) for _, labels in loader) for loader in (retain_loader, forget_loader)]
        self.calls.append(("edit", *sizes))

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        assert model.training
        self.calls.append((step, epoch, len(retain_batch[0]), len(forget_batch[0])))
        return {"loss": float(step), "stop": step == self.stop_at}

    def finish(self, model):
        self.calls.append("finish")


def test_life_of_a_method():
    method = Recorder(epochs=2)
    task, engine = run(method, epochs=2)
    steps = [(step, step // 4, 8, 8) for step in range(8)]
    assert method.calls == ["prepare", ("edit", 32, 8), *steps, "finish"]
    assert engine.current_epoch == 2
    assert engine.callback_metrics["unlearn/loss"] == 7
    assert task.steps_done == 8


def test_the_methods_epochs_win_over_a_longer_trainer():
    method = Recorder(epochs=2)
    run(method, epochs=50)
    assert len([call for call in method.calls if isinstance(call, tuple) and call[0] != "edit"]) == 8
    assert method.calls[-1] == "finish"


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_shorter_trainer_leaves_a_run_that_can_be_resumed(tmp_path):
    method = Recorder(epochs=3)
    run(method, epochs=1, **saving(tmp_path))
    assert method.calls[-1] == (3, 0, 8, 8), "not finished"
    method.calls.clear()
    task = UnlearningTask(network(), method, CLASSES)
    trainer(3).fit(task, datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert method.calls == ["prepare", *[(step, step // 4, 8, 8) for step in range(4, 12)], "finish"]


def test_stop_ends_the_run_with_a_validation():
    method = Recorder(epochs=5, stop_at=1)
    task, engine = run(method, epochs=5)
    assert method.calls[-2:] == [(1, 0, 8, 8), "finish"]
    assert task.stopped
    assert engine.callback_metrics["unlearn/retain_acc"] == 1


@pytest.mark.parametrize("make", [RetainFineTune, Retrain, GradientAscent, NegativeGradient])
def test_every_iterative_method_changes_the_model(make):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task, engine = run(make(epochs=1), model=model)
    assert any(not torch.equal(value, before[name]) for name, value in weights(task).items())
    assert 0 <= engine.callback_metrics["unlearn/forget_acc"] <= 1


def test_identity_leaves_the_model_and_logs_its_accuracies():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task, engine = run(Identity(), epochs=0, model=model)
    assert_same(weights(task), before)
    assert engine.callback_metrics["unlearn/retain_acc"] == 1
    assert engine.callback_metrics["unlearn/forget_acc"] == 1


def test_unlearning_lowers_the_logged_forget_accuracy_alone():
    _, engine = run(NegativeGradient(epochs=20, lr=0.02, a=0.8, batch_norm="freeze"), epochs=20)
    assert engine.callback_metrics["unlearn/forget_acc"] == 0
    assert engine.callback_metrics["unlearn/retain_acc"] > 0.9


def test_gradient_ascent_stops_by_itself():
    task, engine = run(GradientAscent(epochs=500, lr=0.01, target_accuracy=0.1), epochs=500)
    assert engine.current_epoch < 400
    assert task.stopped
    assert engine.callback_metrics["unlearn/forget_acc"] <= 0.1


def test_a_run_matches_a_plain_loop():
    task, _ = run(NegativeGradient(epochs=2, lr=0.05), epochs=2)
    model, method = network(), NegativeGradient(epochs=2, lr=0.05)
    optimizer = method.configure_optimizer(model.parameters())
    for _ in range(2):
        method.set_mode(model)
        for batch, _, _ in iter(Data().train_dataloader()):
            method.unlearn_step(model, batch["retain"], batch["forget"], optimizer, 0, 0)
    assert_same(weights(task), dict(model.state_dict()))


def test_one_shot_methods_edit_once_and_are_validated():
    class Zero(UnlearningMethod):
        def edit(self, model, retain_loader, forget_loader):
            with torch.no_grad():
                model[4].bias[2] -= 100

    _, engine = run(Zero(epochs=0), epochs=0)
    assert engine.callback_metrics["unlearn/forget_acc"] == 0
    assert engine.callback_metrics["unlearn/retain_acc"] == 1


@pytest.mark.parametrize(("method", "stream"), [(RetainFineTune, "retain"), (GradientAscent, "forget")])
def test_methods_that_need_one_stream_run_on_it_alone(method, stream):
    task, _ = run(method(epochs=1), data=Data(streams=(stream,)))
    assert task.steps_done == (4 if stream == "retain" else 1)


def test_a_missing_stream_is_named():
    with pytest.raises(InputError, match="NegativeGradient needs forget batches"):
        run(NegativeGradient(), data=Data(streams=("retain",)))


def test_data_of_another_shape_is_refused():
    class Flat(Data):
        def train_dataloader(self):
            return DataLoader(self.sets["retain"], batch_size=8)

    with pytest.raises(InputError, match="unlearning_view"):
        run(NegativeGradient(), data=Flat())


def test_an_edit_sees_every_record_once_however_often_the_stream_repeats_it():
    class Repeating(Data):
        def train_dataloader(self):
            loaders = {name: DataLoader(self.sets[name], batch_size=8) for name in self.streams}
            repeated = torch.utils.data.RandomSampler(self.sets["forget"], replacement=False, num_samples=32)
            loaders["forget"] = DataLoader(self.sets["forget"], batch_size=8, sampler=repeated)
            return CombinedLoader(loaders, "max_size_cycle")

    method = Recorder(epochs=1)
    run(method, data=Repeating())
    assert method.calls[1] == ("edit", 32, 8)


class UnlearningMethodOfAUser:
    """The form of an MLS-Bench file: one method, its own backward, a loss tensor that still has its graph."""

    def __init__(self):
        self.seen = []

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        model.train()
        images, labels = retain_batch
        forget_images, forget_labels = forget_batch
        loss = nn.functional.cross_entropy(model(images), labels)
        loss = loss - 0.5 * nn.functional.cross_entropy(model(forget_images), forget_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.seen.append((step, epoch, type(optimizer).__mro__[1].__name__))
        return {"loss": loss}


def test_a_plain_user_class_runs_unchanged():
    user, model = UnlearningMethodOfAUser(), network()
    task, engine = run(user, epochs=2, model=model)
    assert [seen[:2] for seen in user.seen] == [(step, step // 4) for step in range(8)]
    assert task.optimizers().param_groups[0]["lr"] == 1e-3
    assert isinstance(task.optimizers().optimizer, torch.optim.Adam)
    assert engine.callback_metrics["unlearn/forget_acc"] <= 1


class Explodes(RetainFineTune):
    """Returns the given loss, and breaks the weights, at one step."""

    def __init__(self, step, loss=float("nan"), **settings):
        super().__init__(epochs=3, **settings)
        self.at, self.value, self.before = step, loss, []

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        self.before.append({name: value.clone() for name, value in model.state_dict().items()})
        result = super().unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)
        if step == self.at:
            with torch.no_grad():
                model[0].weight.fill_(float("nan"))
            result["loss"] = self.value
        return result


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_loss_that_is_not_finite_names_method_step_and_remedy(loss):
    method = Explodes(step=2, loss=loss)
    task = UnlearningTask(network(), method, CLASSES)
    with pytest.raises(RunError, match=r"Explodes diverged at step 2: the loss is .*lower unlearning lr or strength"):
        trainer(3).fit(task, datamodule=Data())
    assert_same(weights(task), method.before[1])
    assert "\n" not in str(RunError("x"))


def test_weights_broken_by_the_last_step_of_an_epoch_are_caught_before_they_are_saved(tmp_path):
    method = Explodes(step=3, loss=0.5)
    task = UnlearningTask(network(), method, CLASSES)
    saver = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1)
    with pytest.raises(RunError, match="Explodes diverged at step 3: weights are not finite"):
        trainer(3, enable_checkpointing=True, callbacks=[saver]).fit(task, datamodule=Data())
    assert_same(weights(task), method.before[3])
    assert not list(tmp_path.iterdir())


def test_an_edit_that_breaks_the_model_restores_the_original():
    class Break(UnlearningMethod):
        def edit(self, model, retain_loader, forget_loader):
            with torch.no_grad():
                model[0].weight.fill_(float("inf"))

    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = UnlearningTask(model, Break(epochs=0), CLASSES)
    with pytest.raises(RunError, match="Break diverged at edit"):
        trainer(0).fit(task, datamodule=Data())
    assert_same(weights(task), before)


@pytest.mark.parametrize("result", [None, {}, 0.5])
def test_a_step_that_returns_no_loss_is_named(result):
    method = SimpleNamespace(unlearn_step=lambda *_: result)
    with pytest.raises(RunError, match='must return a dictionary with "loss"'):
        run(method)


@pytest.mark.parametrize("loss", [None, "0.5", torch.zeros(2)])
def test_a_loss_that_is_no_number_is_named(loss):
    method = SimpleNamespace(unlearn_step=lambda *_: {"loss": loss})
    with pytest.raises(RunError, match=r'"loss" .* no single number'):
        run(method)


def test_only_single_numbers_are_logged_beside_the_loss():
    extra = {"logits": torch.zeros(4, 3), "note": "text", "none": None, "share": torch.tensor([0.5])}
    _, engine = run(SimpleNamespace(epochs=1, unlearn_step=lambda *_: {"loss": 0.5, **extra}))
    logged = {name for name in engine.callback_metrics if name.startswith("unlearn/")}
    assert logged == {"unlearn/loss", "unlearn/share", "unlearn/retain_acc", "unlearn/forget_acc"}


def test_settings_of_the_trainer_that_do_not_suit_are_refused():
    with pytest.raises(InputError, match="max_epochs is 0"):
        run(RetainFineTune(), epochs=0)
    task = UnlearningTask(network(), RetainFineTune(), CLASSES)
    for precision, world_size, named in [("16-mixed", 1, "bf16-mixed"), ("32-true", 2, "trainer.devices to 1")]:
        method = UnlearningMethodOfAUser() if world_size > 1 else RetainFineTune()
        task = UnlearningTask(network(), method, CLASSES)
        task._trainer = SimpleNamespace(max_epochs=1, precision=precision, world_size=world_size)
        task._fabric = None
        with pytest.raises(InputError, match=named):
            task.setup("fit")


def test_half_precision_without_loss_scaling_is_supported():
    task, engine = run(NegativeGradient(epochs=2, lr=0.05), epochs=2, precision="bf16-mixed")
    assert task.model[0].weight.dtype == torch.float32
    assert torch.isfinite(engine.callback_metrics["unlearn/loss"])


class Remembering(NegativeGradient):
    """Depends on a frozen teacher made in `prepare`, on a counter, and on the global generator."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.count = 0

    def prepare(self, model):
        self.count = 0
        self.teacher = model[0].weight.detach().clone()

    def edit(self, model, retain_loader, forget_loader):
        with torch.no_grad():
            model[0].bias.add_(0.1)

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        self.count += 1
        retain_batch = (retain_batch[0] + 0.1 * torch.randn(retain_batch[0].shape), retain_batch[1])
        result = super().unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)
        with torch.no_grad():
            model[0].weight.lerp_(self.teacher, 0.01 * self.count)
        return result

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def saving(folder):
    return {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(dirpath=folder, save_last=True)]}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path):
    settings = {"epochs": 4, "lr": 0.02}
    whole, _ = run(Remembering(**settings), epochs=4, model=network(dropout=0.3))
    assert whole.method.count == 16

    class Killed(Remembering):
        def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
            if step == 10:
                raise ConnectionAbortedError
            return super().unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)

    Killed.__name__ = "Remembering"
    with pytest.raises(ConnectionAbortedError):
        run(Killed(**settings), epochs=4, model=network(dropout=0.3), **saving(tmp_path))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["unlearning"]["steps_done"] == 8

    resumed = UnlearningTask(network(dropout=0.3), Remembering(**settings), CLASSES, seed=1)
    trainer(4).fit(resumed, datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.method.count == 16
    assert resumed.steps_done == 16
    assert_same(weights(resumed), weights(whole))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_that_stopped_does_not_go_on_when_resumed(tmp_path):
    run(Recorder(epochs=5, stop_at=1), epochs=5, **saving(tmp_path))
    method = Recorder(epochs=5)
    task = UnlearningTask(network(), method, CLASSES)
    trainer(5).fit(task, datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert method.calls == ["prepare"]
    assert task.steps_done == 2


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    run(RetainFineTune(epochs=1), **saving(tmp_path))
    task = UnlearningTask(network(), NegativeGradient(epochs=2), CLASSES)
    with pytest.raises(InputError, match="RetainFineTune, not of NegativeGradient"):
        trainer(2).fit(task, datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    with pytest.raises(InputError, match="not one of an unlearning run"):
        task.on_load_checkpoint({})


def test_a_task_can_be_fitted_again():
    method = Recorder(epochs=1)
    task = UnlearningTask(network(), method, CLASSES)
    trainer(1).fit(task, datamodule=Data())
    first = list(method.calls)
    method.calls.clear()
    trainer(1).fit(task, datamodule=Data())
    assert method.calls == first


def test_a_scheduler_steps_once_an_epoch():
    method = RetainFineTune(
        epochs=3, lr=0.08, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    )
    running = trainer(epochs=3)
    running.fit(UnlearningTask(network(), method, CLASSES), datamodule=Data())
    assert running.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)
