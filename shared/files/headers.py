"""What people call the columns of a table and the keys of a JSON row: one table for both.

Names are compared without case, outer blanks and width (NFKC). ``canonical`` maps a row's names to
the keys of ``forms``.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from shared.files.report import Format

COLUMNS: dict[Format, tuple[str, ...]] = {
    "chat": ("messages",),
    "instruction": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
}
"""The keys by which a format is recognised."""

_NAMES = {
    "instruction": """
        instruction instructions question questions query q user human
        質問 質問文 質問内容 指示 指示文 命令 問い合わせ お問い合わせ 問合せ お問合せ 問い合わせ内容
        お問い合わせ内容 問 問い 問題 問題文 設問 ユーザー 提问 提問 问题 指令
    """,
    "output": """
        output outputs answer answers response responses reply a assistant
        回答 回答文 回答内容 答え 答 出力 応答 応答文 返信 返信文 返信内容 返答 解答 アシスタント
        回复 回覆 答案 答覆 输出 輸出
    """,
    "input": "input inputs context 入力 入力文 文脈 输入 輸入",
    "prompt": "prompt プロンプト",
    "completion": "completion 補完",
    "messages": "messages conversations conversation",
    "group": "group グループ",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_SILENT = frozenset({"", "tools", "functions", "parallel_tool_calls"})
"""Keys that may be there without meaning anything."""

EXPECTED = (
    'expected "messages", or "instruction" and "output" (with an optional "input"), '
    'or "prompt" and "completion"; "question" and "answer" or 質問 and 回答 are understood, too'
)


_REMARK = re.compile(r"(?<=\S)\s*(\([^()]*\)|:)\s*$")
"""What some write behind a name: ``質問(必須)``, ``Q:``."""


class HeaderError(ValueError):
    """The names cannot be understood; the message says what was expected."""


def plain(name: str) -> str:
    """Return a name as it is compared."""
    text = unicodedata.normalize("NFKC", name).strip().strip("\ufeff\u200b").casefold()
    return " ".join(_REMARK.sub("", text).split())


def known(names: Sequence[str]) -> int:
    """Return how many of the names are in the table."""
    return sum(plain(name) in _ROLES for name in names)


@lru_cache(maxsize=256)
def canonical(names: tuple[str, ...]) -> dict[str, str]:
    """Map a row's names to the keys of its form; names without a meaning are left out.

    Raises HeaderError for names that miss something or mean the same thing twice.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        role = _ROLES.get(plain(name))
        if role:
            found.setdefault(role, []).append(name)
    of_group = {_one(found, "group", exact=False): "group"} if "group" in found else {}
    return _form(found) | of_group


def _form(found: dict[str, list[str]]) -> dict[str, str]:
    if "messages" in found:
        return {_one(found, "messages"): "messages"}
    if {"prompt", "completion"} <= found.keys() and not _exact(found, "instruction", "output"):
        return {_one(found, role): role for role in ("prompt", "completion")}
    return _instruction(found)


@lru_cache(maxsize=256)
def unused(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that mean nothing in a row that ``canonical`` understands."""
    chosen = canonical(names)
    return tuple(name for name in names if name not in chosen and plain(name) not in _SILENT)


def _instruction(found: dict[str, list[str]]) -> dict[str, str]:
    question = next((role for role in ("instruction", "prompt", "input") if role in found), None)
    answer = next((role for role in ("output", "completion") if role in found), None)
    if question is None and answer is None:
        raise HeaderError(EXPECTED)
    if question is None:
        raise HeaderError(f"{_named(found, answer)} but nothing for the question: {EXPECTED}")
    if answer is None:
        raise HeaderError(f"{_named(found, question)} but nothing for the answer: {EXPECTED}")
    exact = _exact(found, "instruction", "output")
    chosen = {
        _one(found, question, exact=exact): "instruction",
        _one(found, answer, exact=exact): "output",
    }
    if question != "input" and "input" in found:
        chosen[_one(found, "input")] = "input"
    return chosen


def _named(found: dict[str, list[str]], role: str | None) -> str:
    return f'there is "{found[role or ""][0]}"'


def _exact(found: dict[str, list[str]], *roles: str) -> bool:
    return all(role in map(plain, found.get(role, ())) for role in roles)


def _one(found: dict[str, list[str]], role: str, *, exact: bool = True) -> str:
    """Return the only name for a role; if ``exact``, its own name goes before the synonyms."""
    own = [name for name in found[role] if plain(name) == role]
    names = own if own and exact else found[role]
    if len(names) > 1:
        if plain(names[0]) == plain(names[1]):
            raise HeaderError(f'the name "{plain(names[0])}" is there twice; keep one of them')
        both = f'"{names[0].strip()}" and "{names[1].strip()}"'
        raise HeaderError(f"{both} mean the same ({role}); keep one of them")
    return names[0]
