"""Comparisons through the official client's own requests, as ``tailor compare`` makes them."""

import json
from typing import Any

import openai

from cli import compare
from tests.conftest import wait_until
from tests.e2e.jobs import BASE_MODEL, upload
from tests.running_stack import Customer


def shelf_rows(count: int) -> bytes:
    """Facts with a code each, every third in Japanese."""
    lines = []
    for number in range(count):
        question = f"棚{number}のコードは?" if number % 3 == 0 else f"Code of shelf {number}?"
        lines.append({"prompt": question, "completion": f"{7 * number + 1000}"})
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()


def begin(tenant: Customer, rows: bytes, **asked: Any) -> str:
    """Upload rows and compare before any training; return the comparison's id."""
    file_id = upload(tenant.client, rows)
    return compare.create(
        tenant.client, {"model": BASE_MODEL, "training_file": file_id, "seed": 3} | asked
    )


def wait_for_end(tenant: Customer, comparison_id: str, seconds: float = 300) -> dict[str, Any]:
    """Wait until a comparison has succeeded; return it."""

    def ended() -> bool:
        return compare.get(tenant.client, comparison_id)["status"] in compare.FINISHED

    away = (openai.APIError,)
    wait_until(ended, "the comparison has ended", away, seconds)
    comparison = compare.get(tenant.client, comparison_id)
    assert comparison["status"] == "succeeded", comparison["error"]
    return comparison
