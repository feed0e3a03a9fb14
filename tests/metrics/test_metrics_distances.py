"""Pairwise and nearest distances against scipy, and their behaviour at the edges."""

import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from retrace_pl.errors import InputError
from retrace_pl.metrics import cross_pairwise_mse, nearest_records, pairwise_mse
from retrace_pl.metrics import distances as module


def _images(n: int, seed: int, shape: tuple[int, ...] = (2, 5, 5)) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_records_match_scipy():
    x, y = _images(23, 0), _images(17, 1)
    matrix = cdist(x.flatten(1).double().numpy(), y.flatten(1).double().numpy(), "sqeuclidean") / 50
    nearest = nearest_records(x, y)
    assert nearest.position.tolist() == matrix.argmin(axis=1).tolist()
    torch.testing.assert_close(nearest.mse, torch.from_numpy(matrix.min(axis=1)))


def test_nearest_records_are_the_same_in_blocks(monkeypatch):
    x, y = _images(23, 0), _images(17, 1)
    whole = nearest_records(x, y)
    monkeypatch.setattr(module, "_MATRIX_ENTRIES", 40)
    blocks = nearest_records(x, y)
    torch.testing.assert_close(blocks.mse, whole.mse)
    assert torch.equal(blocks.position, whole.position)


def test_copies_are_at_exactly_zero_even_far_from_the_origin():
    y = _images(30, 2) + 1000
    nearest = nearest_records(y[7:12], y)
    assert nearest.mse.tolist() == [0.0] * 5
    assert nearest.position.tolist() == list(range(7, 12))


def test_pairwise_means_match_scipy():
    x, y = _images(11, 3), _images(8, 4)
    a, b = (t.flatten(1).double().numpy() for t in (x, y))
    assert float(pairwise_mse(x)) == pytest.approx(pdist(a, "sqeuclidean").mean() / 50, rel=1e-12)
    assert float(cross_pairwise_mse(x, y)) == pytest.approx(cdist(a, b, "sqeuclidean").mean() / 50, rel=1e-12)


def test_one_row_has_no_pair():
    assert pairwise_mse(_images(1, 0)).isnan()


@pytest.mark.parametrize(
    ("candidates", "records"),
    [(torch.rand(0, 4), torch.rand(3, 4)), (torch.rand(3, 4), torch.rand(3, 5)), (torch.rand(4), torch.rand(3, 4))],
    ids=["empty", "other width", "no batch dimension"],
)
def test_unusable_sets_are_refused(candidates, records):
    with pytest.raises(InputError):
        nearest_records(candidates, records)
