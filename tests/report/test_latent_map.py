import torch

from retrace_pl.report import collect_latents
from retrace_pl.report.latent_map import thumbnails


def candidates(shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, count in (("attack-0", 6), ("attack-1", 6), ("prior-0", 3)):
        found[f"{name}/latents"] = torch.randn(count, 2, generator=generator)
        found[f"{name}/inputs"] = torch.rand(count, *shape, generator=generator)
        found[f"{name}/scores"] = torch.rand(count, generator=generator)
    found["attack-0/pool_latents"] = torch.arange(200.0).view(100, 2)
    found["attack-0/pool_scores"] = torch.arange(100.0) / 100
    found["attack-1/pool_latents"] = torch.zeros(100, 2)
    found["attack-1/pool_scores"] = torch.zeros(100)
    found["baseline.max_diff-0/inputs"] = torch.rand(3, *shape, generator=generator)  # no latents
    return found


def render(latents):
    return latents.sum(1)[:, None, None, None].expand(-1, 1, 4, 4) / 400


def test_queries_of_the_first_search_and_selected_candidates_of_all():
    given = candidates()
    found = collect_latents(given, {"attack-1": torch.tensor([1.0, 0, 1, 1, 0, 0]).numpy()}, render, queried=10)
    kinds = [row[:2] for row in found.rows]
    assert kinds[:10] == [("attack-0", "queried")] * 10
    assert kinds[10:] == [("attack-0", "selected")] * 6 + [("attack-1", "selected")] * 6 + [("prior-0", "selected")] * 3
    assert [int(row[4]) for row in found.rows[:10]] == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]
    assert [row[2] for row in found.rows[:3]] == ["0.0000", "0.1100", "0.2200"]
    assert torch.equal(found.latents[:10], given["attack-0/pool_latents"][::11])
    assert torch.equal(found.latents[10:16], given["attack-0/latents"])
    assert torch.allclose(found.images[1], torch.full((1, 4, 4), (22 + 23) / 400))
    assert torch.equal(found.images[16:22], given["attack-1/inputs"])
    assert [row[3] for row in found.rows[16:22]] == ["1", "0", "1", "1", "0", "0"]


def test_the_prior_has_no_score_and_an_unjudged_search_no_outcome():
    found = collect_latents(candidates(), {}, render)
    assert [row[2:4] for row in found.rows[-3:]] == [("", "")] * 3
    assert all(row[3] == "" for row in found.rows)


def test_few_candidates_of_each_search():
    found = collect_latents(candidates(), {}, render, queried=100, selected=2)
    assert len(found.rows) == len(found.latents) == len(found.images) == 100 + 3 * 2


def test_texts_are_told_and_have_no_picture():
    given = {"attack-0/latents": torch.zeros(2, 3), "attack-0/inputs": torch.ones(2, 5, dtype=torch.int64)}
    told = collect_latents(given, {}, render, describe=lambda inputs: [f"text {len(row)}" for row in inputs])
    assert told.images is None
    assert [row[-1] for row in told.rows] == ["text 5", "text 5"]
    assert told.rows[0][2] == ""


def test_inputs_that_are_no_pictures_and_runs_without_latents():
    given = {"attack-0/latents": torch.zeros(2, 3), "attack-0/inputs": torch.ones(2, 7)}
    assert collect_latents(given, {}, render).images is None
    assert collect_latents({"baseline.max_diff-0/inputs": torch.ones(2, 1, 4, 4)}, {}, render) is None


def test_large_pictures_become_thumbnails():
    assert thumbnails(torch.rand(2, 3, 224, 112)).shape == (2, 3, 64, 32)
    small = torch.rand(2, 1, 16, 16)
    assert thumbnails(small) is small
    halves = torch.zeros(1, 1, 128, 128)
    halves[..., ::2] = 1  # the mean of each two columns
    assert torch.allclose(thumbnails(halves), torch.full((1, 1, 64, 64), 0.5))
