import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from retrace_pl.errors import InputError
from retrace_pl.models import DCGAN, DifferentiableAugmentation, ExponentialMovingAverage, SmallCNN


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("output", ["tanh", "sigmoid"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (3, 64, 64)])
def test_shapes_and_range(shape, output):
    generator = DCGAN(shape, latent_dim=24, width=8, output=output)
    latents = 5 * generator.sample_latents(6, seeded())
    samples = generator(latents)
    assert latents.shape == (6, 24)
    assert samples.shape == (6, *shape)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert samples.std() > 0.01
    logits = generator.build_discriminator()(samples)
    assert logits.shape == (6,)


def test_widths():
    generator = DCGAN((1, 32, 32), width=8, discriminator_width=4)
    up = [module for module in generator.modules() if isinstance(module, nn.ConvTranspose2d)]
    down = [module for module in generator.build_discriminator().modules() if isinstance(module, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in up] == [(32, 16), (16, 8), (8, 1)]
    assert [(layer.in_channels, layer.out_channels) for layer in down] == [(1, 4), (4, 8), (8, 16)]


def test_latents_are_standard_normal_and_seeded():
    generator = DCGAN((1, 16, 16), latent_dim=64)
    state = torch.get_rng_state()
    latents = generator.sample_latents(2000, seeded(1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(latents, generator.sample_latents(2000, seeded(1)))
    assert abs(latents.mean()) < 0.01
    assert latents.std().item() == pytest.approx(1, abs=0.01)


def test_eval_mode_does_not_depend_on_the_batch():
    generator = DCGAN((1, 16, 16))
    latents = generator.sample_latents(8, seeded())
    generator.train()(latents)
    assert not torch.allclose(generator(latents[:2]), generator(latents)[:2], atol=1e-3)
    generator.eval()
    torch.testing.assert_close(generator(latents[:2]), generator(latents)[:2])


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 16, 32), (16, 16), (3, 256, 256)])
def test_unsupported_shapes(shape):
    with pytest.raises(InputError, match="image_size"):
        DCGAN(shape)


def test_bad_widths():
    with pytest.raises(InputError, match="at least 1"):
        DCGAN((1, 16, 16), width=0)


def test_discriminator_is_spectrally_normalised():
    discriminator = DCGAN((1, 16, 16), width=8).build_discriminator()
    layers = [module for module in discriminator.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3
    images = torch.rand(8, 1, 16, 16, generator=seeded())
    for _ in range(30):  # each forward pass refines the estimate of the largest singular value
        discriminator(images)
    for layer in layers:
        assert is_parametrized(layer, "weight")
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_discriminator_sees_the_spread_of_a_batch():
    discriminator = DCGAN((1, 16, 16), width=8).build_discriminator().eval()
    images = torch.rand(8, 1, 16, 16, generator=seeded())
    repeated = images[:1].expand(8, -1, -1, -1)
    assert not torch.allclose(discriminator(images)[0], discriminator(repeated)[0])
    lone = images[:1].clone().requires_grad_()
    discriminator(lone).sum().backward()
    assert torch.isfinite(lone.grad).all()


class TestExponentialMovingAverage:
    def test_the_rule(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        average = ExponentialMovingAverage(model, decay=0.9)
        expected = {name: value.clone() for name, value in model.state_dict().items()}
        for update in range(1, 101):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=seeded(update)))
            model(torch.randn(5, 3, generator=seeded(update)))
            average.update(model)
            decay = min(0.9, update / (update + 9))
            for name, value in model.state_dict().items():
                if name.endswith("num_batches_tracked"):
                    expected[name] = value.clone()
                else:
                    expected[name] = decay * expected[name] + (1 - decay) * value
        assert int(average.updates) == 100
        for name, value in average.module.state_dict().items():
            torch.testing.assert_close(value, expected[name])
        assert (average.module[1].running_mean - model[1].running_mean).abs().max() > 1e-3

    def test_it_is_frozen_and_runs_in_eval_mode(self):
        generator = DCGAN((1, 16, 16), width=4)
        average = ExponentialMovingAverage(generator, 0.9).train()
        assert not any(parameter.requires_grad for parameter in average.parameters())
        assert generator.training
        latents = generator.sample_latents(3, seeded())
        torch.testing.assert_close(average(latents), generator.eval()(latents))
        assert average.module.training
        assert not any(module.training for module in average.averaged().modules())

    @pytest.mark.parametrize("decay", [1.0, -0.1])
    def test_bad_decay(self, decay):
        with pytest.raises(InputError, match="ema_decay"):
            ExponentialMovingAverage(SmallCNN(1, 2), decay)


class TestDifferentiableAugmentation:
    def test_shifts_match_rolled_and_padded_images(self):
        images = torch.rand(64, 2, 8, 8, generator=seeded()) + 0.5
        shifted = DifferentiableAugmentation(translate=0.25)(images, seeded(1))
        padded = nn.functional.pad(images, (2, 2, 2, 2))
        shifts = set()
        for image, result in zip(padded, shifted, strict=True):
            found = [
                (row, column)
                for row in range(5)
                for column in range(5)
                if torch.equal(image[:, row : row + 8, column : column + 8], result)
            ]
            assert len(found) == 1
            shifts.update(found)
        assert len(shifts) > 15

    def test_cut_outs_are_squares_of_the_given_side(self):
        images = torch.ones(64, 1, 8, 8)
        cut = DifferentiableAugmentation(translate=0.0, cutout=0.5)(images, seeded(1))
        assert (cut.flatten(1).sum(dim=1) == 64 - 16).all()
        assert len({tuple(image.flatten().tolist()) for image in cut}) > 10

    def test_gradient_reaches_what_stays_visible(self):
        images = torch.rand(4, 1, 8, 8, generator=seeded()).requires_grad_()
        augment = DifferentiableAugmentation(translate=0.25, cutout=0.5)
        result = augment(images, seeded(2))
        result.sum().backward()
        torch.testing.assert_close((images.grad * images.detach()).sum(), result.detach().sum())
        assert set(images.grad.unique().tolist()) == {0.0, 1.0}

    def test_seeded_and_switched_off(self):
        images = torch.rand(4, 1, 8, 8, generator=seeded())
        augment = DifferentiableAugmentation(translate=0.25, cutout=0.25)
        assert torch.equal(augment(images, seeded(3)), augment(images, seeded(3)))
        assert not torch.equal(augment(images, seeded(3)), augment(images, seeded(4)))
        assert DifferentiableAugmentation(0.0, 0.0)(images) is images

    def test_bad_fractions(self):
        with pytest.raises(InputError, match="translate and cutout"):
            DifferentiableAugmentation(translate=1.5)
