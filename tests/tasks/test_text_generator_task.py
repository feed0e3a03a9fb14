import math
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from retrace_pl.errors import InputError
from retrace_pl.models import DCGAN, DistilBertClassifier, Generator, GPT2Generator
from retrace_pl.tasks import GeneratorTask, TextGeneratorTask, generator_task
from retrace_pl.tasks.generator_choice import generator_class, task_of, task_settings

VOCABULARY, LENGTH = 24, 9


def corpus(n=96, seed=0):
    """Two topics: texts of the tokens 4 to 13 and texts of the tokens 14 to 23, of 3 to 7 tokens."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.zeros(n, LENGTH, dtype=torch.int64)
    for row in range(n):
        count = int(torch.randint(3, 8, (1,), generator=random))
        ids[row, 0] = 2
        ids[row, 1 : count + 1] = 4 + 10 * (row % 2) + torch.randint(0, 10, (count,), generator=random)
        ids[row, count + 1] = 3
    return ids, torch.arange(n) % 2


class Texts(LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batches = [tuple(part) for part in zip(*(column.split(batch_size) for column in corpus()), strict=True)]

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None, generator=torch.Generator())  # not the global one

    def val_dataloader(self):
        return DataLoader(self.batches, batch_size=None, generator=torch.Generator())  # not the global one


def task(seed=0, features=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2Generator((LENGTH, VOCABULARY), latent_dim=4, width=16, layers=1, heads=2, prefix=2)
        return TextGeneratorTask(model, features, seed=seed, **settings)


def fit(running, folder, epochs, resume=None, **settings):
    settings = {"logger": False, "enable_checkpointing": False} | settings
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(running, datamodule=Texts(), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def test_the_loss_is_the_likelihood_under_a_noisy_latent(tmp_path):
    running = task(noise=0.6, word_dropout=0.0)
    seen = {}
    original = running.training_step

    def step(batch, batch_idx):
        if not seen:
            running.eval()
            tokens, state = batch[0], running._random.get_state()
            latents = running.generator.encode(tokens)
            noisy = 0.8 * latents + 0.6 * torch.randn(latents.shape, generator=running._random)
            losses, counts = running.generator.losses(noisy, tokens)
            running._random.set_state(state)
            expected = float((losses.sum() / counts.sum()).detach())
            seen["losses"] = float(original(batch, batch_idx).detach()), expected
            running.train()
        return original(batch, batch_idx)

    running.training_step = step
    fit(running, tmp_path, 1)
    assert seen["losses"][0] == pytest.approx(seen["losses"][1], rel=1e-6)


def test_the_encoder_is_fitted_on_the_training_texts_once(tmp_path):
    running = task()
    fit(running, tmp_path, 1)
    z = running.generator.encode(corpus()[0])
    torch.testing.assert_close(torch.cov(z.T), torch.eye(4), atol=1e-3, rtol=0)
    before = running.generator.encoder.whitening.clone()
    running.generator.encoder.whitening.mul_(2)
    fit(running, tmp_path, 1)
    torch.testing.assert_close(running.generator.encoder.whitening, 2 * before)
    assert not any(name.startswith("encoder") for name, _ in running.named_parameters())
    with pytest.raises(InputError, match="give the trainer a datamodule"):
        Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu").fit(
            task(), Texts().train_dataloader(), Texts().val_dataloader()
        )


def test_the_rate_rises_and_falls_unless_a_scheduler_is_given(tmp_path):
    rates = []
    running = task(lr=0.01)
    running.on_train_batch_end = lambda *_: rates.append(running.optimizers().param_groups[0]["lr"])
    fit(running, tmp_path, 20)
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] < rates[1] < rates[2]
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)
    given = task(lr=0.01, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    fit(given, tmp_path, 2)
    assert given.optimizers().param_groups[0]["lr"] == pytest.approx(0.0025)


def test_training_makes_z_decide_the_topic(tmp_path):
    running = task(lr=0.01)
    trainer = fit(running, tmp_path, 25)
    metrics = trainer.callback_metrics
    product = running.product()
    assert isinstance(product, Generator)
    assert not product.training
    assert not any(parameter.requires_grad for parameter in product.parameters())
    assert float(metrics["val/gain"]) > 0.5, "the decoder does not ignore z"
    assert float(metrics["val/perplexity"]) < 0.6 * (VOCABULARY - 3)
    assert float(metrics["val/perplexity"]) == pytest.approx(math.exp(float(metrics["val/loss"])), rel=1e-4)
    texts, labels = corpus()
    rebuilt = product(product.encode(texts))
    words = (rebuilt >= 4).sum(1).clamp_min(1)
    share = ((rebuilt >= 14).sum(1) / words).sub(labels).abs()
    assert float(share.mean()) < 0.2, "what is written for a text's latent keeps the topic"
    free = product(product.sample_latents(64, torch.Generator().manual_seed(0)))
    purity = (free >= 14).sum(1) / (free >= 4).sum(1)
    assert 0.2 < float(purity.mean()) < 0.8, "both topics come out of the prior"


def test_curves_and_samples_are_logged(tmp_path):
    classifier = DistilBertClassifier(VOCABULARY, 2, width=8, layers=1, heads=1)
    running = task(features=classifier, num_samples=3, evaluate_every=2)
    running.decode = lambda ids: [f"text of {int((row > 3).sum())} words" for row in ids]
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    fit(running, tmp_path, 3, logger=logger)
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0}).Reload()
    for tag in ("train/loss", "val/loss", "val/perplexity", "val/gain"):
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2], tag
    assert all(1.0 <= event.value < 2.0001 for event in events.Scalars("val/classes"))
    samples = events.Tensors("samples/prior/text_summary")
    assert [event.step for event in samples] == [1, 2]
    assert samples[0].tensor_proto.string_val[0].decode().count("- text of ") == 3
    assert classifier.training, "the classifier given is copied"
    assert not any(name.startswith("_classifier") for name in running.state_dict())
    loss = [event.value for event in events.Scalars("train/loss")]
    assert loss[-1] < loss[0] < 1.1 * math.log(VOCABULARY)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resumed_training_gives_the_same_weights(tmp_path):
    def train(folder, stop=None, resume=None):
        running = task()
        start = running.on_train_epoch_start

        def stopping():
            if running.current_epoch == stop:
                raise KeyError
            start()

        running.on_train_epoch_start = stopping
        keep = [ModelCheckpoint(tmp_path / folder, "last", save_top_k=1, enable_version_counter=False)]
        fit(running, tmp_path, 3, resume, callbacks=keep, enable_checkpointing=True)
        return running.state_dict()

    whole = train("whole")
    saved = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"generator"}
    with pytest.raises(KeyError):
        train("parts", stop=2)
    torch.rand(5)
    resumed = train("parts", resume=tmp_path / "parts" / "last.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"noise": 1.0}, "noise"),
        ({"word_dropout": 1.0}, "word_dropout"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        task(**settings)


def test_generators_say_which_task_trains_them():
    assert task_of(DCGAN) is GeneratorTask
    assert task_of(GPT2Generator) is TextGeneratorTask
    assert "ema_decay" in task_settings(DCGAN)
    assert "word_dropout" in task_settings(GPT2Generator)
    assert not {"features", "seed", "generator"} & set(task_settings(GPT2Generator))
    chosen = generator_task(DCGAN((1, 8, 8), latent_dim=2, width=4), seed=3, ema_decay=0.5)
    assert type(chosen) is GeneratorTask
    assert chosen.unused_parameters
    assert not TextGeneratorTask.unused_parameters
    with pytest.raises(InputError, match=r"generator\.task has no setting ema_decay; it has clip_norm, evaluate_every"):
        generator_task(GPT2Generator((LENGTH, VOCABULARY), width=8, layers=1, heads=1), ema_decay=0.5)
    with pytest.raises(InputError, match="is no generator of texts"):
        TextGeneratorTask(DCGAN((1, 8, 8), latent_dim=2, width=4))


@pytest.mark.parametrize(
    "path", ["", "nothing", "no.such.module", "retrace_pl.tasks.Nothing", "retrace_pl.tasks.BaseTask"]
)
def test_a_wrong_task_is_named(path):
    class Own(Generator):
        training_task = path

        def forward(self, latents):
            return latents

    with pytest.raises(InputError, match=r"Own\.training_task"):
        task_of(Own)


def test_the_class_of_a_generator_is_found_in_its_factory():
    def instantiate(kind, *args):
        return kind(*args)

    assert generator_class(DCGAN) is DCGAN
    assert generator_class(partial(DCGAN, width=4)) is DCGAN
    assert generator_class(partial(instantiate, GPT2Generator)) is GPT2Generator

    def packaged(space) -> DCGAN:
        return DCGAN(space)

    def anything(space) -> Generator:
        return DCGAN(space)

    assert generator_class(packaged) is DCGAN
    assert generator_class(anything) is None, "an abstract class says nothing"
    assert generator_class(lambda space: DCGAN(space)) is None
    assert generator_class(dict) is None
