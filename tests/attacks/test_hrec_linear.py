"""The closed forms on scikit-learn's digits: eight single records deleted from linear models by an exact refit.

Setting of all figures: 8x8 digits with pixels in [0, 1], 1,000 training records and 797 public ones, sum loss with an
L2 penalty (lambda 1 for ridge regression, 5 for the softmax head), cosines centred on the public mean.
"""

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from retrace_pl.attacks.hrec_linear import (
    centred_cosine,
    head_gradient,
    kronecker_product,
    leading_factors,
    logit_product,
    reconstruct_record,
    scale_to_constant,
    second_moment,
    softmax_hessian,
    softmax_hessian_product,
    with_constant,
)
from retrace_pl.errors import InputError, NotApplicable, RunError

TRAIN, DELETIONS = 1000, 8
RIDGE_PENALTY, SOFTMAX_PENALTY = 1.0, 5.0


class Digits:
    def __init__(self):
        bunch = load_digits()
        order = torch.randperm(len(bunch.data), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(bunch.data / 16)[order]
        self.labels = torch.tensor(bunch.target)[order][:TRAIN]
        self.train, self.public = with_constant(images[:TRAIN]), with_constant(images[TRAIN:])
        self.mean = self.public[:, :-1].mean(0)

    def without(self, record):
        kept = torch.arange(TRAIN) != record
        return self.train[kept], self.labels[kept]

    def similarity(self, found, record):
        return float(centred_cosine(found, self.train[record, :-1], self.mean))


def ridge(records, labels):
    targets = functional.one_hot(labels, 10).double()
    return torch.linalg.solve(second_moment(records, regularisation=RIDGE_PENALTY), records.T @ targets)


def softmax_step(records, labels, head):
    """Gradient of the objective and the factor of its Hessian."""
    hessian = softmax_hessian(records, head, regularisation=SOFTMAX_PENALTY)
    return softmax_gradient(records, labels, head), torch.linalg.cholesky(hessian)


def softmax_gradient(records, labels, head):
    return head_gradient(records, records @ head, labels) + SOFTMAX_PENALTY * head


def descend(head, gradient, factor):
    return head - torch.cholesky_solve(gradient.reshape(-1, 1), factor).view_as(head)


def fit_softmax_head(records, labels):
    """The minimiser, by Newton's method: with this much regularisation it converges from zero."""
    head = torch.zeros(records.shape[1], 10, dtype=torch.float64)
    for _ in range(20):
        gradient, factor = softmax_step(records, labels, head)
        if float(gradient.norm()) < 1e-9:
            return head, factor
        head = descend(head, gradient, factor)
    raise AssertionError("Newton's method did not converge")


def refit_softmax_head(records, labels, head, factor):
    """The minimiser without one record, by steps with the Hessian that it had with all of them."""
    for _ in range(50):
        gradient = softmax_gradient(records, labels, head)
        if float(gradient.norm()) < 1e-9:
            return head
        head = descend(head, gradient, factor)
    raise AssertionError("the refit did not converge")


@pytest.fixture(scope="module")
def digits():
    return Digits()


@pytest.fixture(scope="module")
def ridge_heads(digits):
    original = ridge(digits.train, digits.labels)
    return original, [ridge(*digits.without(record)) for record in range(DELETIONS)]


@pytest.fixture(scope="module")
def softmax_heads(digits):
    original, factor = fit_softmax_head(digits.train, digits.labels)
    return original, [refit_softmax_head(*digits.without(record), original, factor) for record in range(DELETIONS)]


def test_a_guess_without_information_has_a_high_raw_cosine_and_a_centred_one_near_zero(digits):
    uninformed = digits.train[:, :-1].mean(0)
    raw = [functional.cosine_similarity(uninformed, digits.train[i, :-1], dim=0).item() for i in range(DELETIONS)]
    centred = [digits.similarity(uninformed, record) for record in range(DELETIONS)]
    assert sum(raw) / DELETIONS > 0.75
    assert abs(sum(centred) / DELETIONS) < 0.3


def test_ridge_with_the_exact_matrix_returns_the_record_itself(digits, ridge_heads):
    original, refitted = ridge_heads
    for record, unlearned in enumerate(refitted):
        kept, _ = digits.without(record)
        found, factors = reconstruct_record(original, unlearned, second_moment(kept, regularisation=RIDGE_PENALTY))
        assert digits.similarity(found, record) == pytest.approx(1.0, abs=1e-6)
        assert torch.allclose(found, digits.train[record, :-1], atol=1e-5)
        assert factors.ratio < 1e-6
        residual = functional.one_hot(digits.labels[record], 10) - digits.train[record] @ original
        assert torch.allclose(factors.right, residual / residual.norm(), atol=1e-5)


def test_ridge_with_public_data_comes_close(digits, ridge_heads):
    original, refitted = ridge_heads
    matrix = second_moment(digits.public, TRAIN, RIDGE_PENALTY)
    found = [reconstruct_record(original, unlearned, matrix) for unlearned in refitted]
    cosines = [digits.similarity(record, i) for i, (record, _) in enumerate(found)]
    assert sum(cosines) / DELETIONS == pytest.approx(0.965, abs=0.015), cosines
    assert min(cosines) > 0.9
    labels = [int(factors.right.argmax()) for _, factors in found]
    assert sum(label == digits.labels[i] for i, label in enumerate(labels)) >= 6


def test_without_the_matrix_the_direction_is_wrong(digits, ridge_heads):
    original, refitted = ridge_heads
    eye = torch.eye(65, dtype=torch.float64)
    cosines = [digits.similarity(reconstruct_record(original, new, eye)[0], i) for i, new in enumerate(refitted)]
    assert sum(cosines) / DELETIONS < 0.5


def test_ridge_with_one_output(digits):
    targets = (digits.labels == 3).double()
    gram = second_moment(digits.train, regularisation=RIDGE_PENALTY)
    matrix = gram - torch.outer(digits.train[0], digits.train[0])
    original = torch.linalg.solve(gram, digits.train.T @ targets)
    unlearned = torch.linalg.solve(matrix, digits.train[1:].T @ targets[1:])
    found, factors = reconstruct_record(original, unlearned, matrix)
    assert torch.allclose(found, digits.train[0, :-1], atol=1e-6)
    assert factors.ratio == 0


def test_softmax_head_gives_away_record_and_label(digits, softmax_heads):
    original, refitted = softmax_heads
    constant = torch.eye(65)[-1]
    cosines, right = [], 0
    for record, unlearned in enumerate(refitted):
        product = softmax_hessian_product(digits.public, original, original - unlearned, TRAIN, SOFTMAX_PENALTY)
        factors = leading_factors(-product, constant)
        cosines.append(digits.similarity(scale_to_constant(factors.left), record))
        right += int(factors.right.argmin() == digits.labels[record])
    assert right == DELETIONS
    assert sum(cosines) / DELETIONS == pytest.approx(0.989, abs=0.005), cosines


def test_the_estimate_is_the_deleted_records_gradient(digits, softmax_heads):
    original, refitted = softmax_heads
    gradient = head_gradient(digits.train[:1], digits.train[:1] @ original, digits.labels[:1])
    kept, _ = digits.without(0)
    estimate = -softmax_hessian_product(kept, original, original - refitted[0], regularisation=SOFTMAX_PENALTY)
    assert functional.cosine_similarity(estimate.flatten(), gradient.flatten(), dim=0) > 0.999
    assert float(estimate.norm() / gradient.norm()) == pytest.approx(1, abs=0.1)


def test_the_gradient_is_the_one_of_autograd():
    head = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    features, labels = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    loss = functional.cross_entropy(features @ head, labels, reduction="sum")
    (expected,) = torch.autograd.grad(loss, head)
    assert torch.allclose(head_gradient(features, (features @ head).detach(), labels), expected)


def test_the_products_are_those_of_the_hessian():
    random = torch.Generator().manual_seed(1)
    features, head, direction = (
        torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((20, 6), (6, 4), (6, 4))
    )
    matrix = softmax_hessian(features, head, 50, 0.3)
    expected = (matrix @ direction.flatten()).view(6, 4)
    assert torch.allclose(softmax_hessian_product(features, head, direction, 50, 0.3), expected)
    labels = torch.zeros(20, dtype=torch.long)
    autograd = torch.autograd.functional.hessian(
        lambda theta: functional.cross_entropy(features @ theta, labels, reduction="sum"), head
    ).reshape(24, 24)
    assert torch.allclose(softmax_hessian(features, head), autograd)
    change = features @ direction
    shifted = change + torch.randn(20, 1, generator=random, dtype=torch.float64)
    assert torch.allclose(
        logit_product(features, features @ head, change), softmax_hessian_product(features, head, direction)
    )
    assert torch.allclose(
        logit_product(features, features @ head, shifted), softmax_hessian_product(features, head, direction)
    )


def test_the_kronecker_product_is_exact_where_all_predictions_are_the_same():
    random = torch.Generator().manual_seed(2)
    features, direction = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((20, 6), (6, 4)))
    uniform = torch.zeros(6, 4, dtype=torch.float64)
    arguments = (features, uniform, direction, 50, 0.3)
    assert torch.allclose(kronecker_product(*arguments), softmax_hessian_product(*arguments))
    other = (features, direction, direction)
    assert not torch.allclose(kronecker_product(*other), softmax_hessian_product(*other), rtol=0.1)


def test_the_reference_decides_the_sign():
    left, right = torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0, 0.0])
    for reference in (left, -left):
        factors = leading_factors(torch.outer(left, right), reference)
        assert torch.allclose(factors.left, reference.double())
        assert factors.left @ torch.outer(left, right).double() @ factors.right == pytest.approx(1)


def test_what_has_no_answer_is_refused():
    with pytest.raises(NotApplicable, match="no direction"):
        leading_factors(torch.zeros(3, 2), torch.ones(3))
    with pytest.raises(RunError, match="not finite"):
        leading_factors(torch.full((3, 2), torch.nan), torch.ones(3))
    with pytest.raises(RunError, match="scale is unknown"):
        scale_to_constant(torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="non-empty matrix"):
        second_moment(torch.empty(0, 3))
