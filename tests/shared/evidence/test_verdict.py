"""Which verdict a comparison's scores lead to, and how it is worded."""

import pytest

from shared.evidence.arms import Arm
from shared.evidence.summary import ArmScores, arm_results
from shared.evidence.verdict import FEWEST_QUESTIONS, sentence
from tests.shared.evidence.unmeasured import Unmeasured


def scores(right: int, of: int, shift: int = 0) -> list[float]:
    """Return ``right`` ones among ``of``, spread evenly; ``shift`` turns them round."""
    found = [float((place * right) // of != ((place + 1) * right) // of) for place in range(of)]
    return found[shift:] + found[:shift]


def compared(of: int = 200, clusters=None, binary=True, **right: int):
    """Compare arms by how many questions they answer right."""
    scored = {}
    for place, (arm, count) in enumerate(right.items()):
        prompt = 50 if arm in {"tuned", "zero_shot", "copy_bm25"} else 230
        answers = [Unmeasured(prompt_tokens=prompt)] * of
        scored[Arm(arm)] = ArmScores(scores(count, of, place), answers)
    return arm_results(scored, clusters or list(range(of)), binary=binary, seed=1)


@pytest.mark.parametrize(
    ("right", "kind"),
    [
        ({"zero_shot": 10, "retrieved_5": 44, "tuned": 170}, "fine_tune"),
        ({"zero_shot": 10, "retrieved_5": 190, "tuned": 150}, "retrieve"),
        ({"zero_shot": 10, "copy_bm25": 198, "tuned": 150}, "retrieve"),
        ({"zero_shot": 10, "retrieved_5": 200, "tuned": 199}, "either"),
        ({"zero_shot": 10, "retrieved_5": 150, "tuned": 160}, "cannot_tell"),
        ({"zero_shot": 10, "retrieved_5": 188}, "before_training"),
    ],
)
def test_the_scores_decide(right, kind):
    table, _, verdict = compared(**right)
    assert verdict.kind == kind
    for language in ("en", "ja"):
        text = sentence(verdict, table, language)
        assert "{" not in text
        assert "200" in text


def test_equally_good_with_longer_prompts_saves_nothing():
    table, _, verdict = compared(zero_shot=10, copy_bm25=199, tuned_retrieved_3=200)
    assert verdict.kind == "either"
    assert "reads 0 more" not in sentence(verdict, table, "en")
    assert "saves no prompt tokens" in sentence(verdict, table, "en")
    assert "短くならず" in sentence(verdict, table, "ja")


def test_it_must_win_against_every_untuned_arm():
    _, _, verdict = compared(zero_shot=10, few_shot=100, copy_bm25=165, tuned=170)
    assert verdict.kind == "cannot_tell"


def test_too_few_questions_or_clusters_cannot_tell():
    few = FEWEST_QUESTIONS - 1
    assert compared(of=few, zero_shot=0, tuned=few)[2].kind == "cannot_tell"
    assert compared(of=FEWEST_QUESTIONS, zero_shot=0, tuned=FEWEST_QUESTIONS)[2].kind == "fine_tune"
    together = [place % 29 for place in range(200)]
    table, _, verdict = compared(clusters=together, zero_shot=0, tuned=200)
    assert verdict.kind == "cannot_tell"
    assert "of 30 different groups" in sentence(verdict, table, "en")
    assert "30種類" in sentence(verdict, table, "ja")


def test_too_few_questions_say_so_before_training_too():
    table, _, verdict = compared(of=FEWEST_QUESTIONS - 1, zero_shot=0, copy_bm25=40)
    assert (verdict.kind, verdict.too_few) == ("before_training", True)
    assert "Too little was asked" in sentence(verdict, table, "en")
    assert "見積もれません" in sentence(verdict, table, "ja")


def test_the_figures_of_the_table():
    table, reference, verdict = compared(zero_shot=10, retrieved_5=44, tuned=170)
    assert reference == Arm.TUNED
    by_arm = {result.arm: result for result in table}
    assert by_arm["tuned"].difference is None
    retrieved = by_arm["retrieved_5"]
    assert (retrieved.right, retrieved.score.value, retrieved.prompt_tokens) == (44, 0.22, 230)
    difference = retrieved.difference
    assert difference is not None
    assert difference.score.value == pytest.approx(-0.63)
    assert difference.score.high < 0
    assert difference.worse - difference.better == 126
    assert difference.p is not None
    assert difference.p < 1e-9
    assert verdict.prompt_tokens_saved == 180
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(0.63)


def test_graded_scores_have_no_test_of_pairs():
    table, _, verdict = compared(binary=False, zero_shot=10, retrieved_5=44, tuned=170)
    assert verdict.kind == "fine_tune"
    assert all(result.right is None for result in table)
    assert all(result.difference is None or result.difference.p is None for result in table)


def test_what_could_not_be_asked_and_what_was_cut_is_counted():
    asked = Unmeasured(first_token_seconds=0.5, answer_seconds=2.0)
    answers = [Unmeasured(failed="context_length_exceeded"), Unmeasured(cut=True), asked]
    table, _, _ = arm_results(
        {Arm.ZERO_SHOT: ArmScores([0.0, 0.0, 1.0], answers)}, [0, 1, 2], binary=True, seed=1
    )
    (result,) = table
    assert (result.failed, result.cut, result.first_token_seconds) == (1, 1, 0.5)


def test_four_questions_all_one_way_are_no_proof():
    _, _, verdict = compared(zero_shot=196, tuned=200)
    assert verdict.difference is not None
    assert verdict.difference.low > 0
    assert verdict.kind not in {"fine_tune", "retrieve"}
