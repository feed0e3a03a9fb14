"""Every metric against a library, a brute-force computation or a number worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from scipy.stats import binomtest, mannwhitneyu, multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from retrace_pl.errors import InputError
from retrace_pl.metrics import (
    SSIM,
    CentredCosine,
    Diversity,
    FeatureFID,
    FeatureKID,
    FeatureKL,
    LabelKL,
    MembershipAUC,
    NearestMSE,
    NearestPSNR,
    PairwiseMSE,
    PrecisionRecall,
    SuccessRate,
    frechet_distance,
    kernel_distance,
    membership_auc,
    ssim_window,
    wilson_interval,
)
from retrace_pl.metrics.features import gaussian_kl, shrunk_covariance


def _draw(*shape: int, seed: int = 0, normal: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn if normal else torch.rand)(*shape, generator=generator)


def _value(metric, *updates):
    for update in updates:
        metric.update(update)
    return metric.compute()


class TestPixels:
    def test_by_hand(self):
        records = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        candidates = torch.tensor([[0.5, 0.0], [1.0, 1.0]])
        assert float(_value(NearestMSE(records), candidates)) == pytest.approx((0.125 + 0) / 2)
        assert float(_value(PairwiseMSE(records), candidates)) == pytest.approx((0.125 + 0.625 + 1 + 0) / 4)
        assert float(_value(Diversity(), candidates)) == pytest.approx(0.625)

    def test_against_scipy(self):
        x, y = _draw(20, 3, 4, 4), _draw(9, 3, 4, 4, seed=1)
        a, b = x.flatten(1).double().numpy(), y.flatten(1).double().numpy()
        matrix = cdist(a, b, "sqeuclidean") / 48
        assert float(_value(NearestMSE(y), x)) == pytest.approx(matrix.min(axis=1).mean(), rel=1e-9)
        assert float(_value(PairwiseMSE(y), x)) == pytest.approx(matrix.mean(), rel=1e-9)
        decibels = [
            peak_signal_noise_ratio(one, y[row], data_range=1.0)
            for one, row in zip(x, matrix.argmin(axis=1), strict=True)
        ]
        assert float(_value(NearestPSNR(y), x)) == pytest.approx(float(torch.stack(decibels).mean()), rel=1e-5)
        assert float(_value(Diversity(), x)) == pytest.approx(pdist(a, "sqeuclidean").mean() / 48, rel=1e-9)
        centre = y.mean(dim=0)
        nearest = b[matrix.argmin(axis=1)]
        flat = centre.flatten().double().numpy()
        cosine = 1 - np.array([cdist([p - flat], [q - flat], "cosine")[0, 0] for p, q in zip(a, nearest, strict=True)])
        assert float(_value(CentredCosine(y, centre), x)) == pytest.approx(cosine.mean(), rel=1e-6)

    def test_centring_matters(self):
        # Two bright images that share only their brightness: raw cosine near 1, centred -1.
        centre = torch.full((4,), 0.9)
        records = centre + torch.tensor([[0.05, -0.05, 0.05, -0.05]])
        candidates = centre - torch.tensor([[0.05, -0.05, 0.05, -0.05]])
        assert float(_value(CentredCosine(records, torch.zeros(4)), candidates)) > 0.99
        assert float(_value(CentredCosine(records, centre), candidates)) == pytest.approx(-1, abs=1e-5)

    def test_a_copy_is_perfect(self):
        x = _draw(6, 1, 16, 16)
        assert float(_value(NearestMSE(x), x[2:4])) == 0.0
        assert float(_value(NearestPSNR(x), x[2:4])) == pytest.approx(20 * np.log10(255 * np.sqrt(12)))  # finite
        assert float(_value(CentredCosine(x, x.mean(dim=0)), x[2:4])) == pytest.approx(1)
        assert float(_value(SSIM(x), x[2:4])) == pytest.approx(1, abs=1e-6)

    def test_one_candidate_has_no_diversity(self):
        assert _value(Diversity(), _draw(1, 5)).isnan()

    def test_wrong_centre_is_refused(self):
        with pytest.raises(InputError, match="centre"):
            CentredCosine(_draw(3, 4), torch.zeros(5))


class TestSSIM:
    @pytest.mark.parametrize(("side", "gaussian", "window"), [(32, True, 11), (16, True, 11), (8, False, 7)])
    def test_is_the_libraries_on_the_nearest_record(self, side, gaussian, window):
        y = _draw(5, 3, side, side, seed=1)
        x = (y[[3, 0]] + 0.2 * _draw(2, 3, side, side, seed=2)).clamp(0, 1)
        expected = structural_similarity_index_measure(
            x, y[[3, 0]], gaussian_kernel=gaussian, kernel_size=window, data_range=1.0
        )
        assert float(_value(SSIM(y), x)) == pytest.approx(float(expected), rel=1e-6)
        assert ssim_window((3, side, side)) == window

    def test_formula_by_hand_on_constant_images(self):
        # Without variance SSIM is its luminance term (2 a b + c1) / (a^2 + b^2 + c1), c1 = 0.01^2.
        records, candidates = torch.full((1, 1, 16, 16), 0.8), torch.full((1, 1, 16, 16), 0.2)
        expected = (2 * 0.8 * 0.2 + 1e-4) / (0.8**2 + 0.2**2 + 1e-4)
        assert float(_value(SSIM(records), candidates)) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("shape", [(1, 6, 6), (64,)])
    def test_small_images_and_other_inputs_are_refused(self, shape):
        assert ssim_window(shape) is None
        with pytest.raises(InputError, match="7x7"):
            SSIM(_draw(2, *shape))


class TestSuccess:
    @pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (0, 1), (1, 1), (559, 1000)])
    @pytest.mark.parametrize("level", [0.9, 0.95])
    def test_wilson_matches_scipy(self, k, n, level):
        interval = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
        assert wilson_interval(k, n, level) == pytest.approx((interval.low, interval.high), abs=1e-12)

    def test_wilson_closed_values(self):
        # At k = 0 the upper bound is z^2 / (n + z^2).
        z2 = 1.959963984540054**2
        assert wilson_interval(0, 64) == pytest.approx((0.0, z2 / (64 + z2)))
        assert wilson_interval(64, 64) == pytest.approx((64 / (64 + z2), 1.0))

    @pytest.mark.parametrize(("k", "n", "level"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
    def test_wilson_refuses_nonsense(self, k, n, level):
        with pytest.raises(InputError):
            wilson_interval(k, n, level)

    def test_rate(self):
        result = _value(SuccessRate(), torch.tensor([True, False, True]), torch.tensor([True]))
        assert float(result["rate"]) == 0.75
        assert (float(result["low"]), float(result["high"])) == pytest.approx(wilson_interval(3, 4))

    def test_scores_are_not_successes(self):
        with pytest.raises(InputError, match="booleans"):
            SuccessRate().update(torch.tensor([0.9]))


class TestFeatures:
    @pytest.mark.parametrize(("n", "m", "width"), [(80, 60, 6), (200, 12, 20), (10, 15, 40)])
    def test_frechet_matches_scipy_and_torchmetrics(self, n, m, width):
        mix = _draw(width, width, seed=9, normal=True)
        a = (_draw(n, width, seed=1, normal=True) @ mix).double()
        b = (_draw(m, width, seed=2, normal=True) + 0.3).double()
        cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
        gap = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
        # A jitter makes scipy's root exist where the covariances are singular; it costs digits there.
        eye = np.eye(width) * 1e-9
        scipy_value = gap + np.trace(cov_a + cov_b - 2 * sqrtm((cov_a + eye) @ (cov_b + eye)).real)
        assert float(frechet_distance(a, b)) == pytest.approx(scipy_value, rel=1e-4)

        extractor = torch.nn.Identity()
        extractor.num_features = width
        library = FrechetInceptionDistance(feature=extractor)
        library.update(a, real=True)
        library.update(b, real=False)
        assert float(_value(FeatureFID(b), a)) == pytest.approx(float(library.compute()), rel=1e-5)

    def test_frechet_by_hand(self):
        # Variances 2 and 8 (unbiased), means 0 and 3: 9 + 2 + 8 - 2 sqrt(16).
        a, b = torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [5.0]])
        assert float(frechet_distance(a, b)) == pytest.approx(9 + 2 + 8 - 2 * 4)

    def test_same_sample_is_at_distance_zero(self):
        x = _draw(30, 50, normal=True)
        assert float(_value(FeatureFID(x), x)) == pytest.approx(0, abs=1e-9)
        assert float(_value(FeatureKL(x), x)) == pytest.approx(0, abs=1e-9)

    def test_kid_is_the_unbiased_mmd(self):
        x, y = _draw(20, 5, normal=True), _draw(20, 5, seed=1, normal=True) + 1

        def kernel(a, b):
            return (a.double().numpy() @ b.double().numpy().T / 5 + 1) ** 3

        kxx, kyy, kxy = kernel(x, x), kernel(y, y), kernel(x, y)
        expected = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (20 * 19) - 2 * kxy.mean()
        assert float(_value(FeatureKID(y), x)) == pytest.approx(expected, rel=1e-9)
        assert float(poly_mmd(x.double(), y.double())) == pytest.approx(expected, rel=1e-9)

    def test_kid_is_what_subsets_tend_to(self):
        x, y = _draw(25, 5, normal=True), _draw(60, 5, seed=1, normal=True) * 1.5
        generator = torch.Generator().manual_seed(0)
        rows = [
            (torch.randperm(25, generator=generator)[:10], torch.randperm(60, generator=generator)[:10])
            for _ in range(3000)
        ]
        subsets = [float(poly_mmd(y[b].double(), x[a].double())) for a, b in rows]
        value = float(_value(FeatureKID(y), x))
        assert value == pytest.approx(np.mean(subsets), abs=4 * np.std(subsets) / math.sqrt(len(subsets)))

    def test_kid_is_the_same_in_blocks(self, monkeypatch):
        x, y = _draw(25, 5, normal=True), _draw(60, 5, seed=1, normal=True)
        whole = float(kernel_distance(x, y))
        monkeypatch.setattr("retrace_pl.metrics.features._MATRIX_ENTRIES", 200)
        assert float(kernel_distance(x, y)) == pytest.approx(whole, rel=1e-12)

    def test_kid_of_one_distribution_is_unbiased(self):
        values = [
            float(_value(FeatureKID(_draw(40, 4, seed=2 * s, normal=True)), _draw(40, 4, seed=2 * s + 1, normal=True)))
            for s in range(40)
        ]
        assert min(values) < 0 < max(values)
        assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))

    @pytest.mark.parametrize(("n", "width"), [(60, 5), (8, 30), (2, 4)])
    def test_shrinkage_matches_sklearn(self, n, width):
        rows = _draw(n, width, normal=True).double() * torch.arange(1, width + 1)
        expected, _ = ledoit_wolf(rows.numpy())
        np.testing.assert_allclose(shrunk_covariance(rows, "ledoit_wolf").numpy(), expected, rtol=1e-9, atol=1e-12)

    def test_shrinkage_of_a_collapsed_sample(self):
        assert torch.equal(shrunk_covariance(torch.ones(5, 3), "ledoit_wolf"), torch.zeros(3, 3, dtype=torch.float64))

    def test_gaussian_kl_by_hand_and_by_sampling(self):
        one = torch.ones(1, dtype=torch.float64)
        # KL(N(0, 1) || N(1, 4)) = ln 2 + (1 + 1) / 8 - 1 / 2.
        value = gaussian_kl(0 * one, one[None], one, 4 * one[None])
        assert float(value) == pytest.approx(math.log(2) + 2 / 8 - 1 / 2)
        root_p, root_q = (_draw(3, 3, seed=s, normal=True).double() for s in (1, 2))
        cov_p, cov_q = (r @ r.T + torch.eye(3) for r in (root_p, root_q))
        mean_p, mean_q = torch.zeros(3).double(), torch.tensor([0.5, -1.0, 0.2]).double()
        p = multivariate_normal(mean_p.numpy(), cov_p.numpy(), seed=0)
        q = multivariate_normal(mean_q.numpy(), cov_q.numpy())
        draws = p.rvs(200_000)
        sampled = (p.logpdf(draws) - q.logpdf(draws)).mean()
        assert float(gaussian_kl(mean_p, cov_p, mean_q, cov_q)) == pytest.approx(sampled, rel=0.02)

    def test_kl_uses_the_stated_gaussians_and_direction(self):
        x, y = _draw(40, 4, normal=True).double() * 0.5, _draw(50, 4, seed=1, normal=True).double()
        eye = torch.eye(4, dtype=torch.float64) * 1e-3 * y.var(dim=0, unbiased=False).mean()
        cov_x, cov_y = (torch.from_numpy(ledoit_wolf(s.numpy())[0]) + eye for s in (x, y))
        expected = gaussian_kl(y.mean(0), cov_y, x.mean(0), cov_x)
        reverse = gaussian_kl(x.mean(0), cov_x, y.mean(0), cov_y)
        assert float(_value(FeatureKL(y), x)) == pytest.approx(float(expected), rel=1e-9)
        assert float(expected) > 1.5 * float(reverse)

    def test_kl_of_collapsed_candidates_is_large_and_finite(self):
        y = _draw(50, 4, normal=True)
        value = float(_value(FeatureKL(y), y[:1].expand(20, 4)))
        assert math.isfinite(value)
        assert value > 100

    @pytest.mark.parametrize("metric", [FeatureFID, FeatureKID, FeatureKL, PrecisionRecall])
    @pytest.mark.parametrize(("candidates", "reference"), [(1, 5), (5, 1)])
    def test_one_sample_has_no_distribution(self, metric, candidates, reference):
        value = _value(metric(_draw(reference, 3)), _draw(candidates, 3, seed=1))
        assert all(math.isnan(float(v)) for v in (value.values() if isinstance(value, dict) else [value]))

    @pytest.mark.parametrize(
        "build",
        [
            lambda y: FeatureKL(y, shrinkage=1.5),
            lambda y: FeatureKL(y, floor=0.0),
            lambda y: PrecisionRecall(y, neighbours=0),
        ],
    )
    def test_bad_settings_are_refused(self, build):
        with pytest.raises(InputError):
            build(_draw(5, 3))

    def test_other_feature_width_is_refused(self):
        with pytest.raises(InputError):
            FeatureFID(_draw(5, 3)).update(_draw(5, 4))


class TestLabels:
    def test_by_hand(self):
        metric = LabelKL(torch.tensor([0, 0, 1]), num_classes=2, smoothing=1.0)
        value = float(_value(metric, torch.tensor([1, 1, 0]), torch.tensor([1])))
        p, q = (3 / 5, 2 / 5), (2 / 6, 4 / 6)
        assert value == pytest.approx(p[0] * math.log(p[0] / q[0]) + p[1] * math.log(p[1] / q[1]))

    def test_equal_shares_are_at_zero(self):
        labels = torch.tensor([0, 1, 2, 2])
        assert float(_value(LabelKL(labels, 3), labels)) == 0

    def test_one_candidate_has_no_histogram(self):
        assert _value(LabelKL(torch.tensor([0]), 3), torch.tensor([0])).isnan()

    def test_labels_outside_the_classes_are_refused(self):
        with pytest.raises(InputError, match=r"\[0, 3\)"):
            LabelKL(torch.tensor([0]), 3).update(torch.tensor([3]))


class TestManifold:
    def test_against_brute_force(self):
        x, y = _draw(30, 3, normal=True) * 0.7 + 0.5, _draw(40, 3, seed=1, normal=True)

        def share(samples, centres):
            within = cdist(centres, centres)
            radii = np.sort(within, axis=1)[:, 3]
            return float((cdist(samples, centres) <= radii).any(axis=1).mean())

        value = _value(PrecisionRecall(y), x)
        a, b = x.double().numpy(), y.double().numpy()
        assert float(value["precision"]) == pytest.approx(share(a, b))
        assert float(value["recall"]) == pytest.approx(share(b, a))
        assert 0 < float(value["recall"]) < float(value["precision"]) < 1

    def test_collapse_keeps_precision_and_loses_recall(self):
        y = _draw(50, 2, normal=True)
        value = _value(PrecisionRecall(y), y[:1].expand(20, 2))
        assert float(value["precision"]) == 1.0
        assert float(value["recall"]) == pytest.approx(1 / 50)

    def test_copies_have_both(self):
        y = _draw(10, 2, normal=True)
        assert {k: float(v) for k, v in _value(PrecisionRecall(y), y).items()} == {"precision": 1.0, "recall": 1.0}

    def test_few_samples_lower_k(self):
        value = _value(PrecisionRecall(torch.tensor([[0.0], [1.0]]), neighbours=3), torch.tensor([[0.5], [9.0]]))
        assert {k: float(v) for k, v in value.items()} == {"precision": 0.5, "recall": 1.0}


class TestMembership:
    def test_equal_scores_say_nothing(self):
        # Position ranks without a tie correction give 0.0382 here.
        assert membership_auc(torch.full((6000,), 0.3), torch.full((1000,), 0.3)) == 0.5

    @pytest.mark.parametrize("decimals", [1, 2, 6])
    def test_matches_sklearn_and_scipy_with_ties(self, decimals):
        members = (0.1 + _draw(70)).round(decimals=decimals)
        others = _draw(50, seed=1).round(decimals=decimals)
        truth = [1] * 70 + [0] * 50
        expected = roc_auc_score(truth, torch.cat([members, others]).numpy())
        assert membership_auc(members, others) == pytest.approx(expected, abs=1e-12)
        statistic = mannwhitneyu(members.numpy(), others.numpy()).statistic
        assert membership_auc(members.numpy(), others.tolist()) == pytest.approx(statistic / 3500, abs=1e-6)

    def test_scores_beyond_one_are_not_squashed(self):
        assert membership_auc([100.0, 300.0], [200.0, 50.0]) == 0.75

    def test_perfect_and_reversed(self):
        assert membership_auc([2.0, 3.0], [0.0, 1.0]) == 1.0
        assert membership_auc([0.0, 1.0], [2.0, 3.0]) == 0.0

    def test_nan_is_not_a_number(self):
        assert math.isnan(membership_auc([0.5, math.nan], [0.1]))
        assert math.isnan(membership_auc([0.5], [math.nan]))

    def test_an_empty_side_is_refused(self):
        with pytest.raises(InputError, match="non-members"):
            membership_auc([0.5], [])

    def test_class_form(self):
        scores, member = _draw(60), torch.arange(60) % 3 == 0
        metric = MembershipAUC()
        metric.update(scores[:25], member[:25])
        metric.update(scores[25:], member[25:])
        assert float(metric.compute()) == pytest.approx(membership_auc(scores[member], scores[~member]))
