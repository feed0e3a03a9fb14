import pytest
import torch

from retrace_pl.attacks import AttackContext, NotApplicable
from retrace_pl.attacks.feature_inversion import InversionLog, invert_features, latent_start, pixel_start
from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import IdentityGenerator
from retrace_pl.errors import RunError

TARGET = torch.tensor([1.0, -1.0, 0.5])
START = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def invert(features=torch.nn.Identity(), render=lambda v: v, **settings):  # noqa: B008
    return invert_features(features, TARGET, START, render, **({"steps": 60, "learning_rate": 0.1} | settings))


def test_the_features_are_found_from_every_start():
    found = invert()
    assert float(found.cosines.min()) > 0.999
    assert torch.allclose(torch.cosine_similarity(found.inputs, TARGET[None]), found.cosines)
    assert torch.equal(found.cosines, found.cosines.sort(descending=True).values)


def test_the_centre_is_taken_off_both_sides():
    centre = torch.tensor([0.3, 2.0, -1.0])
    found = invert(centre=centre, steps=200)
    assert float(torch.cosine_similarity(found.inputs - centre, (TARGET - centre)[None]).min()) > 0.999
    assert float(torch.cosine_similarity(found.inputs, TARGET[None]).min()) < 0.99


def test_the_best_point_of_each_descent_is_kept():
    seen = []
    found = invert(learning_rate=5.0, steps=40, watch=lambda variables, cosines: seen.append(cosines))
    assert len(seen) == 40
    reached = torch.stack(seen)
    assert torch.equal(found.cosines, reached.max(0).values.sort(descending=True).values)
    assert bool((reached[-1] < reached.max(0).values).any())


def test_the_variables_are_what_the_inputs_were_rendered_from():
    found = invert(render=lambda v: 2 * v + 1)
    assert torch.equal(found.inputs, 2 * found.variables + 1)


def test_variables_stay_in_the_box():
    watched = []
    found = invert(box=(-0.5, 0.5), watch=lambda variables, _: watched.append(variables.abs().max()))
    assert float(START.abs().max()) > 0.5
    assert float(torch.stack(watched).max()) <= 0.5
    assert float(found.inputs.abs().max()) <= 0.5


def test_one_evaluation_only_measures_the_start():
    found = invert(steps=1)
    assert torch.equal(found.variables, START[torch.cosine_similarity(START, TARGET[None]).argsort(descending=True)])


def test_it_works_under_inference_mode():
    with torch.inference_mode():
        assert float(invert().cosines.min()) > 0.999


def test_what_cannot_be_inverted_says_so():
    with pytest.raises(NotApplicable, match="no gradient"):
        invert(features=lambda x: x.detach())
    with pytest.raises(NotApplicable, match="no gradient"):
        invert(render=lambda v: torch.ones(6, 3, requires_grad=True))
    with pytest.raises(RunError, match="not finite"):
        invert(features=lambda x: x / 0)


def test_latents_start_at_the_prior_and_are_projected_as_in_a_search():
    start, render = latent_start(IdentityGenerator(4), LatentSettings(), 5, torch.Generator().manual_seed(0))
    assert start.shape == (5, 4)
    assert torch.allclose(render(start).norm(dim=1), torch.tensor(2.0))
    with pytest.raises(NotApplicable, match="no latent space"):
        latent_start(torch.nn.Identity(), LatentSettings(), 5, torch.Generator())


def test_pixels_start_as_noise_in_the_range_of_the_public_inputs():
    start, _, box = pixel_start(torch.tensor([[-1.0, 3.0]]), 500, torch.Generator().manual_seed(0))
    assert box == (-1.0, 3.0)
    assert float(start.min()) == pytest.approx(-1, abs=0.05)
    assert float(start.max()) == pytest.approx(3, abs=0.05)
    with pytest.raises(NotApplicable, match="no gradient"):
        pixel_start(torch.tensor([[1, 2]]), 5, torch.Generator())


class Recorder:
    def __init__(self):
        self.events = []

    def on_start(self, budget):
        self.events.append(("start", budget))

    def on_update(self, queries, pool, scalars):
        self.events.append(("update", queries, len(pool), scalars["score/best"]))

    def on_end(self):
        self.events.append(("end",))


@pytest.mark.parametrize("latent_dim", [3, None])
def test_the_log_counts_keeps_and_tells(latent_dim):
    recorder = Recorder()
    context = AttackContext(None, None, None, observer=recorder)
    log = InversionLog(context, latent_dim, queries=10, planned=6 * 60)
    found = invert(watch=log)
    log.end()
    assert log.queries == log.curve[-1][0] == 10 + 6 * 60
    assert log.curve[-1][1] == found.cosines[0]
    assert recorder.events[0] == ("start", 370)
    assert recorder.events[-1] == ("end",)
    if latent_dim is None:  # inputs are moved: there are no latents to keep
        assert log.pool is None
        assert recorder.events[-2][1:3] == (370, 0)
        return
    assert recorder.events[-2][1:3] == (370, 360)
    assert torch.allclose(log.pool.latents.norm(dim=1), torch.tensor(3.0).sqrt())
