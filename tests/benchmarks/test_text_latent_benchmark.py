import importlib.util
import math
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location("benchmark_text_latent", FOLDER / "text_latent.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def test_information_is_found_where_there_is_some_and_nowhere_else(benchmark):
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(1200, 6, generator=random)
    classes = latents[:, :3].argmax(1)
    assert benchmark.entropy(classes) == pytest.approx(math.log(3), abs=0.01)
    found = benchmark.information(latents, classes)
    assert 0.75 * math.log(3) < found <= math.log(3)
    shuffled = benchmark.information(latents[torch.randperm(1200, generator=random)], classes)
    assert -0.05 < shuffled < 0.02, "a lower bound, which costs a little where there is nothing"


def test_paths_lead_from_one_latent_to_the_other_on_an_arc(benchmark):
    first, last = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0])
    path = benchmark.path(first, last, 5)
    torch.testing.assert_close(path[0], first)
    torch.testing.assert_close(path[-1], last)
    torch.testing.assert_close(path.norm(dim=1), torch.linspace(3, 5, 5))
    torch.testing.assert_close(path[2], torch.full((2,), 4 / 2**0.5))
