"""What stands between the audit's settings and Lightning's Trainer."""

import pytest

from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.training import fit, make_trainer


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"accelerator": "quantum"}, "quantum"),
        ({"strategy": "magic"}, "magic"),
        ({"precision": "7-bit"}, "7-bit"),
        ({"devices": 0}, "devices"),
    ],
)
def test_settings_that_lightning_refuses_are_bad_input(settings, named):
    with pytest.raises(InputError, match=rf"trainer: .*{named}"):
        make_trainer(TrainerSettings(**{"accelerator": "cpu", **settings}), quiet=True, logger=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02."])
def test_damaged_checkpoint_is_named(tmp_path, content):
    checkpoint = tmp_path / "checkpoints" / "original-key" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be read; delete it"):
        fit(
            None,
            None,
            name="original",
            key="key",
            epochs=1,
            run=RunFolder(tmp_path),
            settings=TrainerSettings(accelerator="cpu"),
            quiet=True,
        )
