import numpy as np
import pytest

from retrace_pl.audit import adjusted_p_values, candidate_p_values, pair_p_value, significance
from retrace_pl.errors import InputError


def test_p_values_count_ties_and_themselves():
    null = [0.1, 0.2, 0.2, 0.9]
    assert candidate_p_values([0.95, 0.9, 0.2, 0.15, 0.0], null) == pytest.approx([1 / 5, 2 / 5, 4 / 5, 4 / 5, 1.0])


def test_q_values_are_those_of_benjamini_and_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    order = np.argsort(p)
    expected = np.empty(5)
    running = 1.0
    for rank in range(5, 0, -1):  # the definition, from the largest p downwards
        index = order[rank - 1]
        running = min(running, p[index] * 5 / rank)
        expected[index] = running
    assert adjusted_p_values(p) == pytest.approx(expected)


def test_with_r_null_pairs_a_pair_cannot_be_rarer_than_one_in_r_plus_one():
    assert pair_p_value(0.99, [0.1, 0.2, 0.3]) == 0.25
    assert pair_p_value(0.2, [0.1, 0.2, 0.3]) == 0.75


def test_false_discoveries_are_rare_when_the_pair_is_one_more_null_pair():
    rng = np.random.default_rng(0)
    families = 0
    for _ in range(300):
        draws = rng.beta(2, 2, size=(4, 64))
        families += significance(draws[0], list(draws[1:])).significant().any()
    assert families / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_candidates_beyond_every_null_candidate_are_found():
    rng = np.random.default_rng(1)
    null = [rng.uniform(0, 0.5, 64) for _ in range(3)]
    scores = np.concatenate([rng.uniform(0.6, 1.0, 32), rng.uniform(0, 0.5, 32)])
    found = significance(scores, null)
    assert found.significant()[:32].all()
    assert found.significant()[32:].mean() < 0.2
    facts = found.as_dict()
    assert facts["significant"] == int(found.significant().sum())
    assert facts["smallest_p"] == pytest.approx(1 / 193)
    assert (facts["null_candidates"], facts["null_pairs"], facts["pair_p"]) == (192, 3, 0.25)


@pytest.mark.parametrize(("scores", "null"), [([], [[0.1]]), ([0.1], [[]]), ([float("nan")], [[0.1]]), ([0.1], [])])
def test_what_cannot_be_compared_is_refused(scores, null):
    with pytest.raises(InputError, match="p-values"):
        significance(scores, null)
