"""Parameters that this service does not have: accepted where their value asks for nothing.

Clients write down OpenAI's defaults, and send hints for OpenAI's cache and billing. What would
change the answer is refused by name, because nothing is ever dropped in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest

HINTS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "verbosity",
        "reasoning_effort",
    }
)
"""About the caller, or how OpenAI keeps, bills and phrases: an answer here is the same."""


@dataclass(frozen=True)
class Missing:
    """One parameter that is not supported."""

    what: str
    """What a value that does ask for something asks for."""
    neutral: tuple[object, ...] = ()
    """Values that ask for nothing (null always does)."""


_TOOLS = "Tools and function calls are not supported; the models answer with text"
_TEXT = "Only text answers are supported, no audio or images"
_SAMPLING = "Of the sampling parameters only those of OpenAI's API are supported"

MISSING: dict[str, Missing] = {
    "tools": Missing(_TOOLS, ([],)),
    "functions": Missing(_TOOLS, ([],)),
    "tool_choice": Missing(_TOOLS, ("none", "auto", "")),
    "function_call": Missing(_TOOLS, ("none", "auto", "")),
    "parallel_tool_calls": Missing(_TOOLS, (True, False)),
    "web_search_options": Missing("Web search is not supported"),
    "modalities": Missing(_TEXT, (["text"], [])),
    "audio": Missing(_TEXT),
    "prediction": Missing("Predicted outputs are not supported"),
    "logit_bias": Missing("Biases on tokens are not supported", ({}, [])),
    "best_of": Missing("Choosing the best of several answers is not supported", (1,)),
    "echo": Missing("Repeating the prompt in the answer is not supported", (False,)),
    "suffix": Missing("Filling in before a suffix is not supported", ("",)),
    "top_k": Missing(_SAMPLING, (-1, 0)),
    "min_p": Missing(_SAMPLING, (0,)),
    "repetition_penalty": Missing(_SAMPLING, (1,)),
    "repeat_penalty": Missing(_SAMPLING, (1,)),
    "length_penalty": Missing(_SAMPLING, (1,)),
    "use_beam_search": Missing(_SAMPLING, (False,)),
    "ignore_eos": Missing(_SAMPLING, (False,)),
    "min_tokens": Missing(_SAMPLING, (0,)),
    "extra_body": Missing("Send the fields of extra_body beside the others", ({},)),
}


def described(example: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return what adds to a body's JSON schema an example, and what is accepted without effect."""

    def add(schema: dict[str, Any]) -> None:
        schema["examples"] = [example]
        for name in sorted(HINTS):
            schema["properties"].setdefault(name, {"description": "Changes nothing."})
        for name, missing in MISSING.items():
            schema["properties"].setdefault(name, {"enum": [*missing.neutral, None]})

    return add


def without_neutral(asked: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``asked`` without hints and neutral values; refuse by name what asks for more.

    What ``known`` (a schema's fields) names is left to the schema.
    """
    return {
        name: value
        for name, value in asked.items()
        if value is not None and (name in known or not _asks_for_nothing(name, value))
    }


def _asks_for_nothing(name: str, value: object) -> bool:
    if name in HINTS:
        return True
    missing = MISSING.get(name)
    if missing is None:
        return False
    if value in missing.neutral:
        return True
    raise InvalidRequest(f"{missing.what} ('{name}').", name, "unsupported_parameter")
