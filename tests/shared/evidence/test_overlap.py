"""Figures of sacrebleu 2 (CHRF) and rouge-score (rougeL, split at blanks) for the same texts."""

import pytest

from shared.evidence.overlap import chrf, rouge_l


@pytest.mark.parametrize(
    ("answer", "expected", "chrf2"),
    [
        ("cold fan shows twelve", "hot open cold relay fan shows error", 0.318581),
        ("kiln stops", "kiln stops when open", 0.495935),
        ("窯は蓋が開くとE12を示す", "蓋が開くと窯はE31を示します", 0.294669),
        ("毎週月曜日", "月曜日に休みます", 0.180760),
    ],
)
def test_chrf_is_sacrebleus(answer, expected, chrf2):
    assert chrf(answer, expected) == pytest.approx(chrf2, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "expected", "rouge"),
    [
        ("cold fan shows twelve", "hot open cold relay fan shows error", 0.545455),
        ("kiln stops", "kiln stops when open", 0.666667),
    ],
)
def test_rouge_l_is_rouge_scores(answer, expected, rouge):
    assert rouge_l(answer, expected) == pytest.approx(rouge, abs=1e-6)
