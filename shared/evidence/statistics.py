"""Intervals and tests for questions that come in clusters and are answered by several arms.

Binary rates: Wilson (1927). Means and paired differences: a bootstrap of whole clusters (Miller,
"Adding Error Bars to Evals", arXiv 2411.00640, asks for clusters and pairs) with expanded
percentiles (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.3.3):
plain percentiles are too narrow by sqrt((G-1)/G) and by the normal in place of Student's quantile.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from shared.evidence.report import LEVEL, Interval

DRAWS = 10_000
POWER_AND_LEVEL = 7.85
"""(1.96 + 0.84)²: two-sided 5 %, power 80 %."""

Floats = NDArray[np.float64]
Scores = Sequence[float] | Floats
Clusters = Sequence[int] | NDArray[np.int64]
"""For each question the name of its cluster."""
_normal = NormalDist()


def wilson(right: float, n: float) -> Interval:
    """Return a share with Wilson's 95 % score interval; ValueError for no questions.

    Neither needs to be whole: fewer questions may be effective than were asked.
    """
    if n <= 0:
        raise ValueError("a share of no questions")
    z = _normal.inv_cdf(0.5 + LEVEL / 2)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def mcnemar_exact(better: int, worse: int) -> float:
    """Return the two-sided exact p of McNemar's test: discordant pairs against a fair coin.

    It takes questions to be independent of one another.
    """
    n, least = better + worse, min(better, worse)
    if better == worse:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(least + 1))
    # Whole numbers divided as such: 2**n is beyond a float from 1,024 pairs on.
    return float(min(1.0, 2 * tail / (1 << n)))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for all being looked at (Holm 1979), in the order given."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def share_interval(scores: Scores, clusters: Clusters) -> Interval:
    """Return the share of right answers with Wilson's interval for the effective questions.

    Clusters tell less than as many independent questions, as the error of their mean shows; the
    quantile is Student's for the effective number of clusters (Korn and Graubard 1998).
    """
    values = np.asarray(scores, float)
    share, n = float(values.mean()), len(values)
    _, sizes = _by_cluster(values, clusters)
    if len(sizes) == n:
        return wilson(float(values.sum()), n)
    groups = _effective(sizes)
    error = standard_error(values, clusters)
    effective = min(n, share * (1 - share) / error**2) if 0 < share < 1 else groups
    z: float = _normal.inv_cdf(0.5 + LEVEL / 2)
    effective *= (z / student(0.5 + LEVEL / 2, max(1, int(groups) - 1))) ** 2
    return wilson(share * effective, effective).model_copy(update={"value": share})


def sign_flip(scores_a: Scores, scores_b: Scores, clusters: Clusters, seed: int) -> float:
    """Return the two-sided p of no difference: each cluster's difference might have either sign.

    With every question a cluster of its own it is McNemar's test, but for the draws' noise.
    """
    difference = np.asarray(scores_a, float) - np.asarray(scores_b, float)
    sums, _ = _by_cluster(difference, clusters)
    drawn = _signs(len(sums), seed) @ sums
    as_far = np.abs(drawn) >= abs(sums.sum()) - 1e-9
    return float((as_far.sum() + 1) / (DRAWS + 1))


def mean_interval(scores: Scores, clusters: Clusters, seed: int) -> Interval:
    """Return the mean score with its 95 % interval, within 0 and 1."""
    found = _interval(np.asarray(scores, float), clusters, seed, LEVEL)
    return Interval(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def difference_interval(
    scores_a: Scores,
    scores_b: Scores,
    clusters: Clusters,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of a less that of b on the same questions, with its interval."""
    difference = np.asarray(scores_a, float) - np.asarray(scores_b, float)
    found = _interval(difference, clusters, seed, level)
    return Interval(value=found.value, low=max(-1.0, found.low), high=min(1.0, found.high))


def standard_error(differences: Floats, clusters: Clusters) -> float:
    """Return the cluster-robust standard error of a mean, with G / (G - 1) for G clusters."""
    sums, sizes = _by_cluster(differences, clusters)
    groups, mean = len(sums), differences.mean()
    if groups < 2:
        return math.inf
    squares = float(((sums - sizes * mean) ** 2).sum())
    return math.sqrt(squares * groups / (groups - 1)) / len(differences)


def smallest_difference(disagreeing_share: float, n: float) -> float:
    """Return the true difference that n independent questions find with 80 % power at 5 %.

    ``disagreeing_share`` of the questions are answered right by one of two arms alone.
    """
    return min(1.0, math.sqrt(POWER_AND_LEVEL * disagreeing_share / n))


def _interval(values: Floats, clusters: Clusters, seed: int, level: float) -> Interval:
    """Return the mean with its interval by the clustered bootstrap.

    Where hardly any question makes a difference, resampling cannot know how often others would: so
    the interval is never narrower than what as few clusters that differ, unseen so far, could do.
    """
    mean = float(values.mean())
    sums, sizes = _by_cluster(values, clusters)
    groups = len(sums)
    if groups < 2:
        return Interval(value=mean, low=-1.0, high=1.0)
    effective = max(2, int(_effective(sizes)))
    wider = math.sqrt(effective / (effective - 1)) * student(0.5 + level / 2, effective - 1)
    tail = _normal.cdf(-wider)
    means = _resampled_means(sums, sizes, seed)
    low, high = np.quantile(means, [tail, 1 - tail])
    # Agresti and Min (2005) add half a pair to each cell of a paired table: one pair of each kind
    # in which the arms differ. Its part of the variance is all there is when no pair differs.
    largest = float(np.abs(values).max(initial=1.0))
    unseen = student(0.5 + level / 2, effective - 1) * largest / (len(values) + 2)
    half_low = math.hypot(mean - float(low), unseen)
    half_high = math.hypot(float(high) - mean, unseen)
    return Interval(value=mean, low=mean - half_low, high=mean + half_high)


def _by_cluster(values: Floats, clusters: Clusters) -> tuple[Floats, Floats]:
    """Return each cluster's sum [G] and size [G]."""
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(places, values), np.bincount(places)
    return sums.astype(np.float64), sizes.astype(np.float64)


def _effective(sizes: Floats) -> float:
    """Return how many clusters of one size say as much as these (Kish)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _resampled_means(sums: Floats, sizes: Floats, seed: int) -> Floats:
    """Return the mean [DRAWS] of each draw of as many whole clusters as there are."""
    weights = _weights(len(sums), seed)
    means: Floats = (weights @ sums) / (weights @ sizes)
    return means


@lru_cache(maxsize=2)
def _weights(groups: int, seed: int) -> Floats:
    """How often each cluster is in each draw [DRAWS, G]; the same for all arms of a report."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), DRAWS)
    return drawn.astype(np.float64)


@lru_cache(maxsize=2)
def _signs(groups: int, seed: int) -> Floats:
    """-1 or 1 for each cluster in each draw [DRAWS, G]."""
    drawn = np.random.default_rng(seed).integers(0, 2, (DRAWS, groups))
    return (2 * drawn - 1).astype(np.float64)


@lru_cache(maxsize=256)
def student(q: float, freedom: int) -> float:
    """Return the quantile of Student's distribution.

    By the expansion of Abramowitz and Stegun 26.7.5, to three digits from 4 degrees of freedom on.
    """
    z: float = _normal.inv_cdf(q)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
