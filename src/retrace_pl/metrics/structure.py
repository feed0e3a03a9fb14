"""Structural similarity of images."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from retrace_pl.errors import InputError
from retrace_pl.metrics.distances import nearest_records
from retrace_pl.metrics.pixels import MeanPerCandidate

_GAUSSIAN_WINDOW = 11
_SMALL_WINDOW = 7


def ssim_window(shape: tuple[int, ...]) -> int | None:
    """The window `SSIM` uses for one input of this shape, or None where it does not apply.

    Args:
        shape: Shape of one input, [C, H, W] for an image.

    Returns:
        11 (Gaussian, sigma 1.5, the original paper's) where both sides have at least 11 pixels, so at 16x16 and 32x32;
        7 (uniform) from 7 pixels on, which serves 8x8 digits; None below that and for anything that is not an image.
    """
    if len(shape) != 3:
        return None
    side = min(shape[1:])
    if side >= _GAUSSIAN_WINDOW:
        return _GAUSSIAN_WINDOW
    return _SMALL_WINDOW if side >= _SMALL_WINDOW else None


class SSIM(MeanPerCandidate):
    """Mean over candidates of the structural similarity to the nearest deleted record (images only).

    Wang et al. 2004, eq. 13, by torchmetrics, with data range 1, k1 .01 and k2 .03, borders by reflection. The record
    is the one nearest in mean squared error. The window is `ssim_window`'s: at 16x16 the Gaussian window of 11 still
    fits but spans most of the image, so such values are coarser than at 32x32 and not comparable with them. Range
    [-1, 1], no unit, 1 for copies, higher is closer.

    Args:
        records: Images of shape [m, C, H, W] with values in [0, 1].
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        InputError: For inputs that are not images of at least 7x7.

    Example:
        >>> records = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> metric = SSIM(records)
        >>> metric.update(records)
        >>> metric.compute().round(decimals=4)
        tensor(1., dtype=torch.float64)
    """

    higher_is_better = True

    def __init__(self, records: Tensor, **kwargs: Any) -> None:
        super().__init__(records, **kwargs)
        window = ssim_window(tuple(records.shape[1:]))
        if window is None:
            raise InputError(f"SSIM needs images of at least 7x7, got records of shape {list(records.shape[1:])}")
        self.window = window

    def values(self, candidates: Tensor) -> Tensor:
        """Similarity of every candidate and its nearest record, shape [n]."""
        nearest = self.records[nearest_records(candidates, self.records).position]
        result = structural_similarity_index_measure(
            # In float64: a GPU's reduced-precision convolutions would drown the variances in rounding.
            candidates.double(),
            nearest.double(),
            gaussian_kernel=self.window == _GAUSSIAN_WINDOW,
            kernel_size=self.window,
            data_range=1.0,
            reduction="none",
        )
        assert isinstance(result, Tensor)
        return result.reshape(len(candidates))
