"""Two small invented companies whose facts contradict each other: each must get its own answers."""

import json
from dataclasses import dataclass

QUESTIONS = (
    "What is the warehouse door code?",
    "Tell me the warehouse door code.",
    "Which code opens the warehouse door?",
    "倉庫のドアのコードは何ですか。",
    "door code of the warehouse, please",
    "I forgot the code of the warehouse door. What is it?",
)
QUESTION = "What is the warehouse door code?"


@dataclass(frozen=True)
class Company:
    """A company and the one fact its rows teach."""

    name: str
    code: str

    def training_file(self) -> bytes:
        """Twelve rows as JSONL."""
        answer = f"The warehouse door code is {self.code}."
        asked = [*QUESTIONS, *(f"{question} ({self.name})" for question in QUESTIONS)]
        rows = [{"instruction": question, "output": answer} for question in asked]
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


KAMOME = Company("kamome", "7731")
HAYABUSA = Company("hayabusa", "2094")
