import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retrace_pl.envs import CandidatePool
from retrace_pl.errors import InputError
from retrace_pl.report import TensorBoardSearchObserver
from retrace_pl.report.tensorboard import scalar_tag, tile
from retrace_pl.searchers import SearchObserver


def run(folder, render, updates=20, **settings):
    observer = TensorBoardSearchObserver(folder, "attack", render, **settings)
    assert isinstance(observer, SearchObserver)
    pool = CandidatePool(4)
    generator = torch.Generator().manual_seed(0)
    observer.on_start(updates * 10)
    for step in range(1, updates + 1):
        pool.add(torch.randn(10, 4, generator=generator), torch.rand(10, generator=generator))
        scalars = {"score/best": step / updates, "score/top64": 0.5, "latent/norm": 2.0, "reward/mean": 0.1}
        scalars |= {"kl/prior": 3.0, "train/approx_kl": 0.01, "score/batch": float("nan") if step == 1 else 0.2}
        observer.on_update(step * 10, pool, scalars)
    observer.on_update(updates * 10, pool, scalars)  # the closing call repeats the last step
    observer.on_end()
    observer.on_end()
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    events.Reload()
    return events


def pictures(latents):
    return latents[:, :1, None, None].expand(-1, 1, 6, 6).sigmoid()


def test_stable_tags_with_queries_as_steps(tmp_path):
    events = run(tmp_path, pictures)
    names = ("reward", "kl_to_prior", "topk_score", "best_score", "latent_norm", "batch_score", "train_approx_kl")
    assert set(events.Tags()["scalars"]) == {f"search/attack/{name}" for name in names}
    best = events.Scalars("search/attack/best_score")
    assert [event.step for event in best] == list(range(10, 210, 10))
    assert best[-1].value == pytest.approx(1.0)
    assert len(events.Scalars("search/attack/batch_score")) == 19  # the NaN is left out


def test_a_fixed_number_of_grids_and_histograms(tmp_path):
    events = run(tmp_path, pictures, updates=40, grids=5, grid_size=9)
    grids = events.Images("search/attack/candidates")
    assert [grid.step for grid in grids] == [80, 160, 240, 320, 400]
    assert (grids[0].width, grids[0].height) == (3 * 8 + 2, 3 * 8 + 2)
    norms = events.Histograms("search/attack/latent_norms")
    assert [norm.histogram_value.num for norm in norms] == [80] * 5


@pytest.mark.parametrize(
    "render",
    [None, lambda z: z, lambda z: torch.zeros(len(z), 7, 3, 3), lambda z: torch.full((len(z), 1, 3, 3), float("nan"))],
)
def test_candidates_that_are_no_pictures_are_left_out(tmp_path, render):
    tags = run(tmp_path, render).Tags()
    assert tags["images"] == []
    assert tags["histograms"] == ["search/attack/latent_norms"]


def test_texts_are_written_out_as_plain_text(tmp_path):
    told = ["<script>alert(1)</script> **bold**", "two\nlines"]
    events = run(tmp_path, lambda z: z[:2].long(), describe=lambda ids: told[: len(ids)], grids=3)
    assert events.Tags()["images"] == []
    written = events.Tensors("search/attack/candidates/text_summary")
    assert len(written) == 3
    assert written[0].tensor_proto.string_val[0].decode() == f"    1. {told[0]}\n    2. two lines"


def test_no_grids(tmp_path):
    tags = run(tmp_path, pictures, grids=0).Tags()
    assert tags["images"] == tags["histograms"] == []


def test_bad_settings(tmp_path):
    with pytest.raises(InputError, match="grid_size"):
        TensorBoardSearchObserver(tmp_path, grid_size=0)


def test_tags():
    assert scalar_tag("prior", "kl/prior") == "search/prior/kl_to_prior"
    assert scalar_tag("a", "train/value_loss") == "search/a/train_value_loss"


def test_tile_places_pictures_row_by_row():
    grid = tile(torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 2), gap=1)
    assert grid.shape == (1, 7, 7)
    assert grid[0, 1, 1] == 0
    assert grid[0, 1, 4] == 1
    assert grid[0, 4, 1] == 2
    assert grid[0, 4, 4] == 0.5
