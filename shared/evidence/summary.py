"""From what each arm scored on each question to the report's table and verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean, median
from typing import Protocol

import numpy as np

from shared.evidence.arms import TUNED_ARMS, Arm
from shared.evidence.report import LEVEL, ArmResult, Difference, Interval, Verdict
from shared.evidence.statistics import (
    POWER_AND_LEVEL,
    difference_interval,
    holm,
    mcnemar_exact,
    mean_interval,
    share_interval,
    sign_flip,
    smallest_difference,
    standard_error,
)
from shared.evidence.verdict import Size, best, judge

SUPPOSED_SHARE = 0.1
"""Of questions on which a tuned and an untuned arm would differ, before there is a tuned one."""


class Figures(Protocol):
    """What was measured of one answer."""

    @property
    def failed(self) -> str | None:
        """Code of the error, where the question could not be asked."""

    @property
    def cut(self) -> bool:
        """The answer reached the greatest length."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens read."""

    @property
    def completion_tokens(self) -> int:
        """Tokens written."""

    @property
    def first_token_seconds(self) -> float | None:
        """None where no model answered."""

    @property
    def answer_seconds(self) -> float | None:
        """None where no model answered."""


@dataclass(frozen=True)
class ArmScores:
    """One arm on all questions, in their order."""

    scores: Sequence[float]
    answers: Sequence[Figures]


def arm_results(
    scored: Mapping[Arm, ArmScores], clusters: Sequence[int], *, binary: bool, seed: int
) -> tuple[tuple[ArmResult, ...], Arm, Verdict]:
    """Return the table, the reference arm of its differences, and the verdict.

    ``clusters`` names each question's cluster. The reference is the tuned arm, where there are two
    the better one; before training it is the best arm.
    """

    @cache
    def versus(arm: Arm, other: Arm, level: float) -> Interval:
        return difference_interval(scored[arm].scores, scored[other].scores, clusters, seed, level)

    plain = {arm: _result(arm, of_arm, clusters, binary, seed) for arm, of_arm in scored.items()}
    tuned = [arm for arm in scored if arm in TUNED_ARMS]
    reference = best(tuned or list(scored), plain)

    @cache
    def surely(arm: Arm, other: Arm, level: float) -> bool:
        a, b = scored[arm].scores, scored[other].scores
        return versus(arm, other, level).low > 0 and sign_flip(a, b, clusters, seed) < 1 - level

    verdict = judge(plain, versus, surely, _size(scored, plain, clusters))
    differences = _differences(scored, reference, partial(versus, level=LEVEL), binary=binary)
    table = tuple(
        result.model_copy(update={"difference": differences.get(arm)})
        for arm, result in plain.items()
    )
    return table, reference, verdict


def _result(
    arm: Arm, of_arm: ArmScores, clusters: Sequence[int], binary: bool, seed: int
) -> ArmResult:
    scores, answers = of_arm.scores, of_arm.answers
    right = round(sum(scores)) if binary else None
    return ArmResult(
        arm=arm,
        questions=len(scores),
        right=right,
        score=share_interval(scores, clusters) if binary else mean_interval(scores, clusters, seed),
        failed=sum(answer.failed is not None for answer in answers),
        cut=sum(answer.cut for answer in answers),
        prompt_tokens=fmean(answer.prompt_tokens for answer in answers),
        completion_tokens=fmean(answer.completion_tokens for answer in answers),
        first_token_seconds=_median([answer.first_token_seconds for answer in answers]),
        answer_seconds=_median([answer.answer_seconds for answer in answers]),
    )


def _differences(
    scored: Mapping[Arm, ArmScores], reference: Arm, versus: "partial[Interval]", *, binary: bool
) -> dict[Arm, Difference]:
    others = [arm for arm in scored if arm != reference]
    pairs = {arm: _discordant(scored[arm].scores, scored[reference].scores) for arm in others}
    ps = holm([mcnemar_exact(*pairs[arm]) for arm in others]) if binary else [None] * len(others)
    return {
        arm: Difference(
            versus=reference,
            score=versus(arm, reference),
            better=pairs[arm][0],
            worse=pairs[arm][1],
            p=p,
        )
        for arm, p in zip(others, ps, strict=True)
    }


def _discordant(scores: Sequence[float], others: Sequence[float]) -> tuple[int, int]:
    """Count the questions on which the first arm scores more, and less."""
    pairs = list(zip(scores, others, strict=True))
    return sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)


def _size(
    scored: Mapping[Arm, ArmScores], results: Mapping[Arm, ArmResult], clusters: Sequence[int]
) -> Size:
    """Say how much was asked, and what difference between tuned and untuned it would show."""
    tuned = [arm for arm in scored if arm in TUNED_ARMS]
    detectable = smallest_difference(SUPPOSED_SHARE, len(clusters))
    if tuned:
        untuned = [arm for arm in scored if arm not in TUNED_ARMS]
        a, b = best(tuned, results), best(untuned, results)
        difference = np.asarray(scored[a].scores, float) - np.asarray(scored[b].scores, float)
        # The rule of thumb for independent questions, with the error that these really have.
        detectable = min(1.0, POWER_AND_LEVEL**0.5 * standard_error(difference, clusters))
        detectable = max(detectable, smallest_difference(1 / len(clusters), len(clusters)))
    return Size(len(clusters), len(set(clusters)), detectable)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
