"""Made-up comparisons whose truth is known: clustered questions, arms that err alike."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from shared.evidence.arms import TUNED_ARMS, Arm
from shared.evidence.report import Interval
from shared.evidence.statistics import difference_interval
from shared.evidence.summary import ArmScores, arm_results
from tests.shared.evidence.unmeasured import Unmeasured

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """How many questions, in how many clusters, and how often two arms are truly right."""

    questions: int
    clusters: int
    rates: tuple[float, float]
    even: bool = True
    """Clusters of one size; else few large and many small ones."""

    def __str__(self) -> str:
        return f"{self.questions} in {self.clusters}, {self.rates[0]:g} and {self.rates[1]:g}"


def clusters_of(setting: Setting, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw each question's cluster."""
    weights = np.ones(setting.clusters)
    if not setting.even:
        weights = 1 / np.arange(1, setting.clusters + 1) ** 0.7
    extra = rng.multinomial(setting.questions - setting.clusters, weights / weights.sum())
    return np.repeat(np.arange(setting.clusters), 1 + extra)


def right(clusters: Any, rates: list[float], rng: np.random.Generator) -> Iterator[Floats]:
    """Draw for each arm which questions it answers right.

    A latent normal of each answer is the sum of its cluster's part, the same for all arms (0.2),
    the cluster's for this arm (0.2), the question's (0.3), and its own (0.3).
    """
    of_cluster = rng.standard_normal(clusters.max() + 1)
    of_question = rng.standard_normal(len(clusters))
    for rate in rates:
        of_arm = rng.standard_normal(clusters.max() + 1)
        latent = 0.2**0.5 * (of_cluster + of_arm)[clusters]
        latent = latent + 0.3**0.5 * (of_question + rng.standard_normal(len(clusters)))
        yield (latent < norm.ppf(rate)).astype(float)


def coverage(setting: Setting, *, tries: int, seed: int) -> float:
    """Return the share of intervals that hold the true difference."""
    rng, truth = np.random.default_rng(seed), setting.rates[0] - setting.rates[1]
    held = 0
    for _ in range(tries):
        clusters = clusters_of(setting, rng)
        a, b = right(clusters, list(setting.rates), rng)
        found: Interval = difference_interval(a, b, clusters, seed)
        held += found.low <= truth <= found.high
    return held / tries


def claims(setting: Setting, *, arms: int, tries: int, seed: int) -> Counter[str]:
    """Count the verdicts on ``arms`` untuned arms and two tuned ones."""
    rng = np.random.default_rng(seed)
    untuned = [arm for arm in Arm if arm not in TUNED_ARMS][:arms]
    chosen = [*untuned, *sorted(TUNED_ARMS)]
    rates = [setting.rates[1]] * arms + [setting.rates[0]] * 2
    found: Counter[str] = Counter()
    for _ in range(tries):
        clusters = clusters_of(setting, rng)
        scored = {
            arm: ArmScores(scores.tolist(), [Unmeasured()] * len(scores))
            for arm, scores in zip(chosen, right(clusters, rates, rng), strict=True)
        }
        _, _, verdict = arm_results(scored, clusters.tolist(), binary=True, seed=seed)
        found[verdict.kind] += 1
    return found
