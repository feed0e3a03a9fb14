import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from retrace_pl.envs import CandidatePool
from retrace_pl.errors import InputError
from retrace_pl.report import TensorBoardSearchObserver
from retrace_pl.report.tensorboard import scalar_tag, search_log, tile
from retrace_pl.report.tensorboard_tags import LAYOUT, TAGS, described
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
    events = EventAccumulator(str(folder / "attack"), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    events.Reload()
    return events


def pictures(latents):
    return latents[:, :1, None, None].expand(-1, 1, 6, 6).sigmoid()


def test_stable_tags_with_queries_as_steps(tmp_path):
    events = run(tmp_path, pictures)
    names = ("reward", "kl_to_prior", "topk_score", "best_score", "latent_norm", "batch_score", "train_approx_kl")
    assert set(events.Tags()["scalars"]) == {f"search/{name}" for name in names}
    best = events.Scalars("search/best_score")
    assert [event.step for event in best] == list(range(10, 210, 10))
    assert best[-1].value == pytest.approx(1.0)
    assert len(events.Scalars("search/batch_score")) == 19  # the NaN is left out


def test_a_fixed_number_of_grids_and_histograms(tmp_path):
    events = run(tmp_path, pictures, updates=40, grids=5, grid_size=9)
    grids = events.Images("search/candidates")
    assert [grid.step for grid in grids] == [80, 160, 240, 320, 400]
    assert (grids[0].width, grids[0].height) == (3 * 8 + 2, 3 * 8 + 2)
    for tag in ("search/latent_norms", "search/scores"):
        assert [event.histogram_value.num for event in events.Histograms(tag)] == [80] * 5
    scores = events.Histograms("search/scores")[0].histogram_value
    assert 0 <= scores.min < scores.max <= 1


@pytest.mark.parametrize(
    "render",
    [None, lambda z: z, lambda z: torch.zeros(len(z), 7, 3, 3), lambda z: torch.full((len(z), 1, 3, 3), float("nan"))],
)
def test_candidates_that_are_no_pictures_are_left_out(tmp_path, render):
    tags = run(tmp_path, render).Tags()
    assert tags["images"] == []
    assert sorted(tags["histograms"]) == ["search/latent_norms", "search/scores"]


def test_texts_are_written_out_as_plain_text(tmp_path):
    told = ["<script>alert(1)</script> **bold**", "two\nlines"]
    events = run(tmp_path, lambda z: z[:2].long(), describe=lambda ids: told[: len(ids)], grids=3)
    assert events.Tags()["images"] == []
    written = events.Tensors("search/candidates/text_summary")
    assert len(written) == 3
    assert written[0].tensor_proto.string_val[0].decode() == f"    1. {told[0]}\n    2. two lines"


def test_norms_on_a_sphere_are_one_number(tmp_path):
    pool = CandidatePool(16)
    latents = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    pool.add(4 * latents / latents.norm(dim=1, keepdim=True), torch.rand(64))
    assert pool.latents.norm(dim=1).unique().numel() > 1
    observer = TensorBoardSearchObserver(tmp_path, "attack")
    observer.on_start(64)
    observer.on_update(64, pool, {})
    observer.on_end()
    [written] = EventAccumulator(str(tmp_path / "attack")).Reload().Histograms("search/latent_norms")
    assert (written.histogram_value.min, written.histogram_value.max) == (4, 4)


def test_no_grids(tmp_path):
    tags = run(tmp_path, pictures, grids=0).Tags()
    assert tags["images"] == tags["histograms"] == []


def test_bad_settings(tmp_path):
    with pytest.raises(InputError, match="grid_size"):
        TensorBoardSearchObserver(tmp_path, grid_size=0)


def test_tags():
    assert scalar_tag("kl/prior") == "search/kl_to_prior"
    assert scalar_tag("train/value_loss") == "search/train_value_loss"


def test_every_search_is_a_run_of_its_own(tmp_path):
    names = ("attack-0", "rival.random-0", "..", "a/b")
    folders = [search_log(tmp_path, name) for name in names]
    assert [folder.name for folder in folders] == ["attack-0", "rival.random-0", "_", "a_b"]
    assert {folder.parent for folder in folders} == {tmp_path}


def test_every_search_brings_the_layout_of_the_charts(tmp_path):
    content = run(tmp_path, None).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    assert [category.title for category in layout.category] == list(LAYOUT)
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["Best score"] == ["search/best_score$"]


def test_what_the_charts_ask_for_is_described():
    """Every regular expression of the layout finds a tag of the table, so none of the charts is empty by a typo."""
    scalars = [row.tag for row in TAGS if row.kind == "scalar"]
    scalars += ["evaluate/sr_oracle", "evaluate/score"]  # stand for `evaluate/*`
    for charts in LAYOUT.values():
        for chart, (kind, patterns) in charts.items():
            assert kind == "Multiline"
            for pattern in patterns:
                assert any(re.match(pattern, tag) for tag in scalars), (chart, pattern)


def test_an_entry_of_the_log_has_one_description():
    assert described("search/attack-0", "search/train_std", "scalar").tag == "search/*"
    assert described("generator", "train/loss", "scalar").shows.startswith("Texts")
    assert described("retrained-1", "train/loss", "scalar").run == "*"
    assert described("search/attack-0", "search/candidates", "text").kind == "text"
    for run, tag in (("original", "hp_metric"), ("evaluation", "leakage/excess"), ("evaluation", "evaluate/mse")):
        assert described(run, tag, "scalar") is None


def test_the_documentation_has_the_same_table():
    lines = (Path(__file__).parents[2] / "docs" / "tensorboard.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| run | tag | kind | step | shows |") + 2
    rows = [line for line in lines[start:] if line.startswith("|")]
    assert rows == [f"| `{tag.run}` | `{tag.tag}` | {tag.kind} | {tag.step} | {tag.shows} |" for tag in TAGS]


def test_tile_places_pictures_row_by_row():
    grid = tile(torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 2), gap=1)
    assert grid.shape == (1, 7, 7)
    assert grid[0, 1, 1] == 0
    assert grid[0, 1, 4] == 1
    assert grid[0, 4, 1] == 2
    assert grid[0, 4, 4] == 0.5
