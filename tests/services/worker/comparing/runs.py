"""What tests of whole comparisons share: arms, a model that knows, and the report."""

import re

from shared.comparisons.state import State
from shared.evidence.arms import Arm
from shared.evidence.report import Report
from tests.services.worker.comparing.model_server import Reply, question_in
from tests.services.worker.comparing.workshop import NUMBERS

UNTUNED = (
    Arm.COPY_BM25,
    Arm.COPY_EMBEDDING,
    Arm.ZERO_SHOT,
    Arm.FEW_SHOT,
    Arm.RETRIEVED_1,
    Arm.RETRIEVED_3,
    Arm.RETRIEVED_5,
)

QUESTIONS = NUMBERS // 5
LEXICAL = tuple(arm for arm in UNTUNED if arm is not Arm.COPY_EMBEDDING)
"""Without the embedding model, which takes a second."""


def say_the_code(body):
    """A model that knows everything, and answers as it was shown."""
    return Reply(f"E{re.findall('[0-9]+', question_in(body))[-1]}")


def report_of(workshop, comparison_id) -> Report:
    comparison = workshop.get(comparison_id)
    assert comparison.state == State.SUCCEEDED, comparison.error
    return Report.model_validate(comparison.report)
