from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from retrace_pl.attacks import Attack, AttackContext, HRec, NotApplicable
from retrace_pl.attacks.hrec_linear import centred_cosine
from retrace_pl.envs import LatentSettings
from retrace_pl.errors import AccessError, InputError
from retrace_pl.models import SmallCNN
from retrace_pl.traces import ModelPair

CONFIGS = Path(__file__).parents[2] / "configs" / "attack"
TRAIN, PENALTY = 1000, 5.0


class PrincipalComponents(nn.Module):
    """A generator that a few lines can fit: images along the principal axes of the public ones."""

    latent_dim = 24

    def __init__(self, public):
        super().__init__()
        flat = public.flatten(1)
        self.shape = public.shape[1:]
        self.mean = flat.mean(0)
        _, values, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.axes = (values[:, None] * axes)[: self.latent_dim] / len(flat) ** 0.5

    def forward(self, latents):
        return (self.mean + latents @ self.axes).clamp(0, 1).view(-1, *self.shape)


class Counting(nn.Module):
    """A model that counts the records it is shown; its linear layer is registered first and used last."""

    def __init__(self, classes=10, bias=True):
        super().__init__()
        self.last = nn.Linear(64, classes, bias=bias)
        self.unused = nn.Linear(3, 3)
        self.seen = 0

    def forward(self, inputs):
        self.seen += len(inputs)
        return functional.log_softmax(self.last(inputs.flatten(1)), dim=1)  # as the models of others may return


class Digits:
    """Logistic regression on 8x8 digits, one record deleted by an exact refit."""

    def __init__(self):
        bunch = load_digits()
        order = torch.randperm(len(bunch.data), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(bunch.images / 16, dtype=torch.float32)[order][:, None]
        self.labels = torch.tensor(bunch.target)[order][:TRAIN]
        self.train, self.public = images[:TRAIN], images[TRAIN:]
        self.generator = PrincipalComponents(self.public)
        self.original = self.fit(self.train, self.labels, torch.zeros(10, 65, dtype=torch.float64))
        self.unlearned = self.fit(self.train[1:], self.labels[1:], self.original)

    @staticmethod
    def fit(images, labels, start):
        records = torch.cat([images.flatten(1), torch.ones(len(images), 1)], 1).double()
        head = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([head], max_iter=500, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = functional.cross_entropy(records @ head.T, labels, reduction="sum")
            (loss + PENALTY / 2 * head.square().sum()).backward()
            return loss + PENALTY / 2 * head.square().sum()

        optimizer.step(closure)
        return head.detach()

    def pair(self, access="white"):
        models = []
        for head in (self.original, self.unlearned):
            model = Counting()
            model.last.weight.data, model.last.bias.data = head[:, :-1].float(), head[:, -1].float()
            model.unused.load_state_dict(nn.Linear(3, 3).state_dict())
            models.append(model)
        models[1].unused.load_state_dict(models[0].unused.state_dict())
        return ModelPair(*models, access)

    def context(self, pair=None, **settings):
        defaults = {"public": self.public, "budget": 4000, "seed": 0, "latent": LatentSettings(projection="none")}
        return AttackContext(self.pair() if pair is None else pair, None, self.generator, **(defaults | settings))

    def similarity(self, images):
        centre = self.public.flatten(1).mean(0)
        return centred_cosine(images.flatten(1), self.train[0].flatten(), centre)


@pytest.fixture(scope="module")
def digits():
    return Digits()


def deep_pair(public, *, access="white", change_features=True):
    torch.manual_seed(0)
    original, unlearned = SmallCNN(1, 10, width=4), SmallCNN(1, 10, width=4)
    unlearned.load_state_dict(original.state_dict())
    with torch.no_grad():
        unlearned.head.weight.add_(0.1 * torch.randn_like(unlearned.head.weight))
        if change_features:
            unlearned.body[0].weight.add_(0.1 * torch.randn_like(unlearned.body[0].weight))
    return ModelPair(original, unlearned, access)


@pytest.mark.parametrize("inversion", ["generator", "pixels"])
def test_a_record_deleted_from_a_linear_model_is_reconstructed(digits, inversion):
    attack = HRec(inversion, starts=8, steps=60, weight_decay=PENALTY / TRAIN)
    assert isinstance(attack, Attack)
    found = attack.reconstruct(digits.context())
    assert found.facts["inferred_label"] == digits.labels[0]
    assert found.facts["feature_change"] == 0
    assert found.facts["scope"].startswith("head only")
    assert found.facts["scaled_by"] == "constant coordinate"
    assert found.facts["singular_ratio"] < 0.1
    assert digits.similarity(found.instance) > 0.95
    prior = digits.generator(torch.randn(200, 24, generator=torch.Generator().manual_seed(1)))
    assert digits.similarity(found.inputs).min() > digits.similarity(prior).max()
    assert found.inputs.shape == (8, 1, 8, 8)
    assert bool((found.inputs >= 0).all())
    assert bool((found.inputs <= 1).all())


def test_the_hessian_of_public_features_is_what_finds_the_record(digits):
    def similarity(estimate, weight_decay=PENALTY / TRAIN):
        attack = HRec(starts=8, steps=60, estimate=estimate, weight_decay=weight_decay)
        found = attack.reconstruct(digits.context())
        assert found.facts["inferred_label"] == digits.labels[0]
        return float(digits.similarity(found.instance))

    assert similarity("hessian") > similarity("difference") + 0.1
    # With the same features in both models, the logits change as the head does: only the penalty's term is missing.
    assert similarity("outputs") == pytest.approx(similarity("hessian", weight_decay=0.0), abs=1e-3)
    assert similarity("outputs") > 0.85


@pytest.mark.parametrize("inversion", ["generator", "pixels"])
def test_every_image_shown_to_a_model_is_a_query_within_the_budget(digits, inversion):
    context = digits.context(budget=2500)
    found = HRec(inversion, starts=16).reconstruct(context)
    original, unlearned = context.pair.networks()
    assert original.seen == found.queries <= 2500
    assert unlearned.seen == found.facts["public_records"] == len(digits.public)
    assert found.queries + 16 > 2500
    assert found.curve[-1][0] == found.queries
    assert [point[1] for point in found.curve] == sorted(point[1] for point in found.curve)
    assert found.curve[-1][1] == pytest.approx(found.facts["cosine_best"])


@pytest.mark.parametrize("inversion", ["generator", "pixels"])
def test_the_observer_watches_the_descents(digits, recorder, inversion):
    found = HRec(inversion, starts=16).reconstruct(digits.context(budget=2500, observer=recorder))
    assert recorder.budgets == [found.queries]
    assert [(queries, seen["score/best"], seen["score/top64"]) for queries, _, seen in recorder.updates] == found.curve
    assert recorder.updates[-1][1] == (len(found.pool) if inversion == "generator" else 0)
    assert recorder.ends == 1


def test_a_small_budget_leaves_half_of_it_for_the_search(digits):
    context = digits.context(budget=201)
    found = HRec(starts=10).reconstruct(context)
    assert found.facts["public_records"] == 100
    assert found.queries == context.pair.networks()[0].seen == 201
    with pytest.raises(NotApplicable, match="leaves none of 20 for 64 starts"):
        HRec().reconstruct(digits.context(budget=20))


def test_steps_can_be_limited(digits):
    found = HRec(starts=4, steps=3, public_records=50).reconstruct(digits.context())
    assert found.queries == 50 + 1 + 4 * 3


def test_the_result_is_ordered_and_can_be_generated_again(digits):
    context = digits.context(latent=LatentSettings())
    found = HRec(starts=8, steps=20).reconstruct(context)
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert torch.equal(found.instance, found.inputs[:1])
    assert found.instance_score == found.scores[0] == found.facts["cosine_best"]
    assert torch.allclose(found.latents.norm(dim=1), torch.tensor(24.0).sqrt())
    assert torch.allclose(digits.generator(found.latents), found.inputs, atol=1e-6)
    assert len(found.pool) == 8 * 20
    assert found.pool.best == pytest.approx(found.instance_score)


@pytest.mark.parametrize("inversion", ["generator", "pixels"])
def test_the_same_seed_gives_the_same_reconstruction(digits, inversion):
    attack = HRec(inversion, starts=4, steps=10)
    first, again, other = (attack.reconstruct(digits.context(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


def test_pixels_need_no_generator_and_have_no_latents(digits):
    context = digits.context()
    context.generator = nn.Identity()
    found = HRec("pixels", starts=4, steps=5).reconstruct(context)
    assert found.latents is None
    assert found.pool is None
    with pytest.raises(NotApplicable, match="no latent space"):
        HRec(starts=4, steps=5).reconstruct(context)


def test_total_variation_makes_pixels_smoother(digits):
    def roughness(weight):
        found = HRec("pixels", starts=4, steps=40, tv_weight=weight).reconstruct(digits.context())
        return float(found.inputs.diff(dim=3).abs().mean())

    assert roughness(10.0) < 0.7 * roughness(0.0)


@pytest.mark.parametrize("change_features", [False, True])
def test_a_deep_pair_says_how_far_the_theory_holds(change_features):
    public = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pair = deep_pair(public, change_features=change_features)
    context = AttackContext(pair, None, PrincipalComponents(public), public=public, budget=400)
    found = HRec(starts=4).reconstruct(context)
    assert (found.facts["feature_change"] > 0.01) == change_features
    assert found.facts["scope"].startswith("beyond" if change_features else "head only")
    assert 0 <= found.facts["inferred_label"] < 10
    assert found.instance_score > found.curve[0][1]
    uncentred = HRec(starts=4, centre=False).reconstruct(context)
    assert uncentred.instance_score > found.instance_score  # features all point the same way: a raw cosine is high


@pytest.mark.parametrize("estimate", ["hessian", "kronecker", "difference", "outputs"])
def test_every_estimate_runs_and_is_noted(digits, estimate):
    found = HRec(estimate=estimate, starts=4, steps=5).reconstruct(digits.context())
    assert found.facts["estimate"] == estimate


def test_one_step_of_ascent_is_read_off_the_difference(digits):
    pair = digits.pair()
    original, unlearned = pair.networks()
    unlearned.last.load_state_dict(original.last.state_dict())
    gradient = torch.func.grad(
        lambda weights: functional.nll_loss(
            torch.func.functional_call(original, weights, (digits.train[:1],)), digits.labels[:1]
        )
    )(dict(original.named_parameters()))
    for name in ("weight", "bias"):
        getattr(unlearned.last, name).data.add_(gradient[f"last.{name}"])
    attack = HRec("pixels", starts=4, steps=100, estimate="difference", tv_weight=0.0)
    found = attack.reconstruct(digits.context(pair))
    assert found.facts["inferred_label"] == digits.labels[0]
    assert found.facts["singular_ratio"] < 1e-4
    assert digits.similarity(found.instance) > 0.99


def test_a_head_without_bias_is_scaled_by_the_mean_feature(digits):
    torch.manual_seed(0)
    models = Counting(bias=False), Counting(bias=False)
    found = HRec(starts=4, steps=5).reconstruct(digits.context(ModelPair(*models, "white")))
    assert found.facts["scaled_by"] == "mean public feature"


@pytest.mark.parametrize("access", ["black", "gray"])
def test_white_box_access_is_needed(digits, access):
    with pytest.raises(AccessError):
        HRec().reconstruct(digits.context(digits.pair(access)))


def test_pairs_it_does_not_apply_to_are_told_why(digits):
    def refuse(match, *models, **settings):
        with pytest.raises(NotApplicable, match=match):
            HRec(starts=4, steps=5).reconstruct(digits.context(ModelPair(*models, "white"), **settings))

    model = Counting()
    refuse("same parameters", model, model)
    refuse("differ in architecture", Counting(), Counting(classes=9))
    refuse("public inputs", Counting(), Counting(), public=None)
    convolution = [nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()) for _ in range(2)]
    refuse("does not end in a linear layer", *convolution)
    hidden = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()) for _ in range(2)]
    refuse("does not end in a linear layer", *hidden)
    body_only = Counting()
    body_only.last.load_state_dict(model.last.state_dict())
    refuse("last layer is the same in both", model, body_only)
    with pytest.raises(NotApplicable, match="both models"):
        HRec().reconstruct(AttackContext(None, None, digits.generator, public=digits.public))


@pytest.mark.parametrize(
    "settings",
    [
        {"inversion": "latent"},
        {"estimate": "newton"},
        {"starts": 0},
        {"steps": 0},
        {"public_records": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"tv_weight": -1.0},
        {"weight_decay": -1.0},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        HRec(**settings)


@pytest.mark.parametrize(("file", "inversion"), [("hrec", "generator"), ("hrec_pixels", "pixels")])
def test_the_packaged_settings_are_the_defaults(file, inversion):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Attack, "attack")
    settings = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
    attack = parser.instantiate(parser.parse_object({"attack": settings})).attack
    assert isinstance(attack, HRec)
    assert vars(attack) == vars(HRec(inversion))
