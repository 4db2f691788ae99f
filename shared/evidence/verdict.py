"""What a comparison says in one sentence, of five kinds, and when it may say so.

*Fine-tune*: a tuned arm is better than every untuned arm. *Retrieve*: an untuned arm is better than
every tuned one. *Either*: the best of both surely differ by less than ``MARGIN``. *Cannot tell*:
none of these, or too few questions. *Before training*: nothing is tuned yet.

Better means that the clustered interval of the difference excludes zero, and that a test which
flips the signs of whole clusters finds as much in fewer cases than the level. Better than *every*
other arm needs no correction for their number, each being tested at the full level (Berger 1982);
but the arm that wins was chosen among several, so its level is divided by their number
(Bonferroni). With no true difference between the best tuned and the best untuned arm a side is
claimed in at most 5 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.evidence import figures
from shared.evidence.arms import COPIES, TUNED_ARMS, Arm
from shared.evidence.report import LEVEL, ArmResult, Interval, Verdict, VerdictKind
from shared.evidence.words import Language, arm_name, words

MARGIN = 0.05
"""Five points: less is not worth choosing by."""
FEWEST_QUESTIONS = 50
FEWEST_CLUSTERS = 30
"""With fewer the intervals are narrower than they should be (docs/evidence.md has the figures)."""

Versus = Callable[[Arm, Arm, float], Interval]
"""The difference of two arms' mean scores with its interval at a level."""
Surely = Callable[[Arm, Arm, float], bool]
"""Whether the first of two arms is better at a level."""


@dataclass(frozen=True)
class Size:
    """How much was asked."""

    questions: int
    clusters: int
    detectable: float
    """Smallest true difference that so much finds."""

    @property
    def too_few(self) -> bool:
        """Whether it is too little for any verdict."""
        return self.questions < FEWEST_QUESTIONS or self.clusters < FEWEST_CLUSTERS


def judge(arms: Mapping[Arm, ArmResult], versus: Versus, surely: Surely, size: Size) -> Verdict:
    """Say what the arms' results amount to; there must be an untuned arm among them."""
    tuned = [arm for arm in arms if arm in TUNED_ARMS]
    untuned = [arm for arm in arms if arm not in TUNED_ARMS]
    best_untuned = best(untuned, arms)
    best_tuned = best(tuned, arms) if tuned else None
    difference = versus(best_tuned, best_untuned, LEVEL) if best_tuned else None
    return Verdict(
        kind=_kind(tuned, untuned, arms, (versus, surely), size) if tuned else "before_training",
        best_tuned=best_tuned,
        best_untuned=best_untuned,
        difference=difference,
        too_few=size.too_few,
        detectable=size.detectable,
        prompt_tokens_saved=_saved(arms, best_untuned, best_tuned or Arm.ZERO_SHOT),
    )


def best(among: Sequence[Arm], arms: Mapping[Arm, ArmResult]) -> Arm:
    """Return the arm with the highest score; of equals the one with the shortest prompts."""
    return max(among, key=lambda arm: (arms[arm].score.value, -arms[arm].prompt_tokens))


def sentence(verdict: Verdict, arms: Sequence[ArmResult], language: Language) -> str:
    """Word a verdict for whoever decides by it."""
    of_arm = {result.arm: result for result in arms}
    untuned = of_arm[verdict.best_untuned]
    tuned = of_arm[verdict.best_tuned] if verdict.best_tuned else None
    binary = untuned.right is not None
    copied = verdict.best_untuned in COPIES
    name = f"sentence_{verdict.kind}"
    if verdict.kind in {"cannot_tell", "before_training"} and verdict.too_few:
        name += "_few"
    elif copied and verdict.kind in _OF_COPIES:
        name += "_copy"
    elif verdict.kind == "either" and verdict.prompt_tokens_saved <= 0:
        name += "_longer"
    return words(language)[name].format(
        untuned=arm_name(verdict.best_untuned, language),
        untuned_score=figures.score(untuned.score.value, binary=binary),
        tuned=arm_name(tuned.arm, language) if tuned else "",
        tuned_score=figures.score(tuned.score.value, binary=binary) if tuned else "",
        questions=figures.count(untuned.questions),
        fewest=FEWEST_QUESTIONS,
        fewest_groups=FEWEST_CLUSTERS,
        detectable=figures.size(verdict.detectable, binary=binary),
        saved=figures.tokens(max(0.0, verdict.prompt_tokens_saved)),
        added=figures.tokens(max(0.0, -verdict.prompt_tokens_saved)),
    )


_OF_COPIES = {"retrieve", "before_training"}
"""Kinds that say something else where no model is needed at all."""


def _kind(
    tuned: Sequence[Arm],
    untuned: Sequence[Arm],
    arms: Mapping[Arm, ArmResult],
    compare: tuple[Versus, Surely],
    size: Size,
) -> VerdictKind:
    versus, surely = compare
    if size.too_few:
        return "cannot_tell"
    best_tuned, best_untuned = best(tuned, arms), best(untuned, arms)
    if _beats(best_tuned, untuned, surely, chosen_of=len(tuned)):
        return "fine_tune"
    if _beats(best_untuned, tuned, surely, chosen_of=len(untuned)):
        return "retrieve"
    between = versus(best_tuned, best_untuned, LEVEL)
    return "either" if between.low > -MARGIN and between.high < MARGIN else "cannot_tell"


def _beats(arm: Arm, others: Sequence[Arm], surely: Surely, *, chosen_of: int) -> bool:
    level = 1 - (1 - LEVEL) / chosen_of
    return all(surely(arm, other, level) for other in others)


def _saved(arms: Mapping[Arm, ArmResult], untuned: Arm, instead: Arm) -> float:
    """Prompt tokens an answer that ``instead`` saves; nothing where it was not asked."""
    return arms[untuned].prompt_tokens - arms[instead].prompt_tokens if instead in arms else 0.0
