"""Asking networks about many inputs: every input once, in any number of processes, with the same answers."""

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch import nn

from retrace_pl.errors import RunError
from retrace_pl.tasks import Scoring, score_together
from retrace_pl.tasks.scoring import blocks_of, gather


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


@pytest.fixture
def scorings(network):
    generator = torch.Generator().manual_seed(1)
    many, one = torch.rand(37, 1, 8, 8, generator=generator), torch.rand(1, 1, 8, 8, generator=generator)

    def ask(inputs):
        return {"logits": network(inputs), "mean": inputs.mean(dim=(1, 2, 3))}

    return [
        Scoring.of("many", many, ask, batch_size=8),
        Scoring.of("none", many[:0], ask, batch_size=8),
        Scoring.of("one", one, ask, batch_size=8),
    ]


def trainer_with(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    shared = {"accelerator": "cpu", "logger": False, "use_distributed_sampler": False, "inference_mode": False}
    return Trainer(**quiet, **shared, **options)


def check(found, scorings):
    assert {name: len(answers.get("mean", ())) for name, answers in found.items()} == {"many": 37, "none": 0, "one": 1}
    for scoring in scorings:
        inputs = scoring.take(0, scoring.size)
        if len(inputs):
            expected = torch.cat([scoring.ask(part)["logits"] for part in inputs.split(8)])
            assert torch.equal(found[scoring.name]["logits"], expected)
            assert torch.equal(found[scoring.name]["mean"], inputs.mean(dim=(1, 2, 3)))


@torch.no_grad()
def test_one_process_answers_everything_in_order(scorings, network, tmp_path):
    found = score_together(scorings, [network], trainer_with(devices=1), tmp_path / "answers")
    check(found, scorings)
    assert not (tmp_path / "answers").exists()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of forking
def test_two_processes_lose_and_repeat_nothing_and_agree_to_the_last_bit(scorings, network, tmp_path):
    # 6 blocks, of 8, 8, 8, 8, 5 and 1 inputs: no number of candidates that two processes could share evenly.
    (tmp_path / "answers").mkdir()
    save_file({"0:0:logits": torch.zeros(8, 5)}, tmp_path / "answers" / "rank-7.safetensors")  # of an earlier attempt
    found = score_together(scorings, [network], trainer_with(devices=2, strategy="ddp_fork"), tmp_path / "answers")
    check(found, scorings)


def test_shares_are_equal_but_for_one_block(scorings):
    blocks = blocks_of(scorings)
    assert [block.stop - block.start for block in blocks] == [8, 8, 8, 8, 5, 1]
    assert sorted(blocks[0::2] + blocks[1::2]) == sorted(blocks)


def test_answers_that_are_missing_or_come_twice_are_an_error(scorings, tmp_path):
    def write(rank, *keys):
        save_file({f"{key}:logits": torch.zeros(rows, 5) for key, rows in keys}, tmp_path / f"rank-{rank}.safetensors")

    every = [("0:0", 8), ("0:8", 8), ("0:16", 8), ("0:24", 8), ("0:32", 5), ("2:0", 1)]
    write(0, *every[:3])
    with pytest.raises(RunError, match="answers are missing"):
        gather(scorings, tmp_path)
    write(1, *every[3:5], ("2:0", 2))  # one answer too many
    with pytest.raises(RunError, match="answers are missing"):
        gather(scorings, tmp_path)
    write(1, *every[2:])
    with pytest.raises(RunError, match="repeats answers"):
        gather(scorings, tmp_path)
    write(1, *every[3:])
    assert {name: len(answers.get("logits", ())) for name, answers in gather(scorings, tmp_path).items()} == {
        "many": 37,
        "none": 0,
        "one": 1,
    }
