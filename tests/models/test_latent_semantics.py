import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from retrace_pl.errors import InputError
from retrace_pl.models.latent_semantics import LatentSemanticEncoder

VOCABULARY, DIMENSION = 60, 5


def texts(n=300, seed=0):
    """Texts of three topics, 20 tokens each, of 5 to 12 tokens with padding 0."""
    random = torch.Generator().manual_seed(seed)
    ids = 20 * (torch.arange(n) % 3)[:, None] + torch.randint(0, 20, (n, 12), generator=random)
    inside = torch.arange(12) < torch.randint(5, 13, (n, 1), generator=random)
    return ids * inside, inside


@pytest.fixture(scope="module")
def encoder():
    made = LatentSemanticEncoder(VOCABULARY, DIMENSION)
    made.fit(*texts())
    return made


def test_it_is_what_scikit_learn_computes(encoder):
    ids, inside = texts()
    words = [" ".join(f"w{i}" for i in row[kept].tolist()) for row, kept in zip(ids, inside, strict=True)]
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+", min_df=2)
    plane = PCA(DIMENSION, svd_solver="arpack", random_state=0)
    found = normalize(plane.fit_transform(vectorizer.fit_transform(words)))
    expected = torch.from_numpy(PCA(DIMENSION, whiten=True, svd_solver="full").fit_transform(found)).float()
    torch.testing.assert_close(encoder(ids, inside), expected, atol=1e-4, rtol=1e-4)


def test_latents_of_the_fitted_texts_have_mean_0_and_covariance_1(encoder):
    z = encoder(*texts())
    torch.testing.assert_close(z.mean(0), torch.zeros(DIMENSION), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(DIMENSION), atol=1e-3, rtol=0)


def test_unseen_texts_of_a_topic_lie_together(encoder):
    z = encoder(*texts(60, seed=1))
    centres = torch.stack([encoder(*texts())[topic::3].mean(0) for topic in range(3)])
    assert float(torch.cdist(z, centres).argmin(1).eq(torch.arange(60) % 3).float().mean()) > 0.95


def test_a_text_does_not_depend_on_its_batch_or_its_order(encoder):
    ids, inside = texts(8, seed=2)
    together = encoder(ids, inside)
    torch.testing.assert_close(encoder(ids[3:4], inside[3:4]), together[3:4])
    torch.testing.assert_close(encoder(ids.flip(1), inside.flip(1)), together)


def test_fitting_twice_gives_the_same_buffers(encoder):
    again = LatentSemanticEncoder(VOCABULARY, DIMENSION)
    assert not again.fitted
    again.fit(*texts())
    assert again.fitted
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_text_without_known_tokens_has_a_latent(encoder):
    z = encoder(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool))
    assert bool(z.isfinite().all())


def test_what_cannot_be_fitted_or_was_not_is_refused():
    made = LatentSemanticEncoder(VOCABULARY, DIMENSION)
    with pytest.raises(InputError, match="the text encoder is empty"):
        made(*texts())
    with pytest.raises(InputError, match="latent_dim: 5 directions need more than 6 texts"):
        made.fit(*texts(6))
