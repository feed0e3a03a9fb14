"""Latent semantic analysis: a fixed map from texts to what they are about (Deerwester et al., 1990)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError

__all__ = ["LatentSemanticEncoder"]

SMALLEST = 1e-8  # a text without a single known token has no direction


class LatentSemanticEncoder(nn.Module):
    """Texts to latents z that are spread like N(0, I) over the texts it was fitted on.

    `z = W (u / |u| - m)`, `u = C (t / |t| - c)`: t holds `(1 + log count) idf` of every token of a text, C the first d
    principal directions of the fitted texts, and W and m make mean and covariance of the fitted z those of N(0, I). All
    of it is computed once with scikit-learn and kept as buffers, so it travels with the weights, needs no training and
    cannot collapse.

    Args:
        vocabulary: Number V of token ids.
        latent_dim: Dimension d of z.
    """

    def __init__(self, vocabulary: int, latent_dim: int) -> None:
        super().__init__()
        self.weights: Tensor
        self.directions: Tensor
        self.offset: Tensor
        self.middle: Tensor
        self.whitening: Tensor
        self.register_buffer("weights", torch.zeros(vocabulary))
        self.register_buffer("directions", torch.zeros(vocabulary, latent_dim))
        self.register_buffer("offset", torch.zeros(latent_dim))
        self.register_buffer("middle", torch.zeros(latent_dim))
        self.register_buffer("whitening", torch.zeros(latent_dim, latent_dim))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, or the buffers of a fitted encoder were loaded."""
        return bool(self.whitening.any())

    def fit(self, tokens: Tensor, inside: Tensor) -> None:
        """Compute the map from texts; the same texts give the same one.

        Args:
            tokens: Token ids [n, T].
            inside: Which of them [n, T] are text, and neither padding nor marks of its beginning and end.

        Raises:
            InputError: There are too few different texts, or tokens, for d directions.
        """
        from scipy.sparse import csr_matrix
        from sklearn.decomposition import PCA
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.preprocessing import normalize

        vocabulary, dimension = self.directions.shape
        rows, columns = (part.cpu().numpy() for part in inside.nonzero(as_tuple=True))
        ids = tokens.cpu().numpy()[rows, columns]
        counts = csr_matrix((np.ones(len(ids)), (rows, ids)), shape=(len(tokens), vocabulary))
        known = np.bincount(counts.indices, minlength=vocabulary) > 1  # what one text holds relates it to no other
        if min(len(tokens), int(known.sum())) <= dimension + 1:
            raise InputError(
                f"latent_dim: {dimension} directions need more than {len(tokens)} texts with {int(known.sum())} tokens "
                "that two of them share: lower it, or raise public_size"
            )
        tfidf = TfidfTransformer(norm=None, sublinear_tf=True).fit(counts)
        weights = tfidf.idf_ * known
        counts.data = 1.0 + np.log(counts.data)
        scaled = normalize(counts.multiply(weights).tocsr())
        plane = PCA(dimension, svd_solver="arpack", random_state=0).fit(scaled)
        found = normalize(plane.transform(scaled))
        white = PCA(dimension, whiten=True, svd_solver="full").fit(found)
        whitening = white.components_ / np.sqrt(white.explained_variance_)[:, None]
        for name, value in (
            ("weights", weights),
            ("directions", plane.components_.T),
            ("offset", plane.mean_ @ plane.components_.T),
            ("middle", white.mean_),
            ("whitening", whitening.T),
        ):
            getattr(self, name).copy_(torch.as_tensor(np.ascontiguousarray(value)))

    @torch.no_grad()
    def forward(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """Map texts to latents [n, d]; arguments as those of `fit`.

        Raises:
            InputError: The encoder was neither fitted nor loaded.
        """
        if not self.fitted:
            raise InputError("the text encoder is empty: fit it on public texts, or load a trained generator's weights")
        with torch.autocast(tokens.device.type, enabled=False):
            counts = self.weights.new_zeros(len(tokens), len(self.weights))
            counts.scatter_add_(1, tokens, inside.to(counts.dtype))
            scaled = torch.where(counts > 0, 1.0 + counts.clamp_min(1.0).log(), 0.0) * self.weights
            found = functional.normalize(scaled, dim=1, eps=SMALLEST) @ self.directions - self.offset
            return torch.as_tensor((functional.normalize(found, dim=1, eps=SMALLEST) - self.middle) @ self.whitening)
