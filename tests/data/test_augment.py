import pytest
import torch

from retrace_pl.data.augment import augment, random_crop


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _batch(count=64, size=16, channels=3):
    return torch.randint(0, 256, (count, channels, size, size), generator=_generator(9), dtype=torch.uint8)


def test_random_crop_equals_a_loop_over_images():
    pixels = _batch(20, 8)
    got = random_crop(pixels, 2, _generator(3))
    top, left = torch.randint(0, 5, (2, 20), generator=_generator(3)).tolist()
    for index in range(20):
        padded = torch.zeros(3, 12, 12, dtype=torch.uint8)
        padded[:, 2:10, 2:10] = pixels[index]
        assert torch.equal(got[index], padded[:, top[index] : top[index] + 8, left[index] : left[index] + 8])


def test_every_offset_occurs():
    dot = torch.zeros(2000, 1, 9, 9)
    dot[:, 0, 4, 4] = 1
    places = random_crop(dot, 2, _generator()).flatten(1).argmax(1).unique()
    assert len(places) == 25  # from two up and left to two down and right


def test_flip_mirrors_about_half_of_the_images():
    ramp = torch.arange(16, dtype=torch.uint8).expand(2000, 1, 16, 16).contiguous()
    out = augment(ramp, "crop_flip", _generator())
    inner = out[:, 0, 8, 5:11].int().diff(dim=1)[:, 0]  # the crop moves by two pixels at most, so no padding in here
    assert set(inner.tolist()) == {1, -1}
    assert 0.46 < (inner == -1).float().mean() < 0.54


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
def test_the_generator_decides_alone(kind):
    pixels = _batch()
    state = torch.get_rng_state()
    first, second = (augment(pixels, kind, _generator(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == pixels.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, pixels) == (kind == "none")
    assert torch.equal(augment(pixels, kind, _generator(2)), first) == (kind == "none")
