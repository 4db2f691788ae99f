"""What columns and keys may be called: one table for CSV, workbooks and JSON."""

import json
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from shared.files.forms import EXPECTED, KNOWN_KEYS, BadRow, Unreadable, format_of

SYNONYMS = {
    "instruction": "instruction instructions question questions query q user human 質問 質問文 "
    "質問内容 問 問い 問い合わせ 問合せ 問合わせ お問い合わせ 問い合わせ内容 指示 指示文 設問 依頼 "
    "ユーザー",
    "output": "output answer answers response reply a assistant 回答 回答文 回答内容 答 答え 返答 "
    "返信 返信内容 応答 出力 解答 模範解答 アシスタント",
    "input": "input context 入力 文脈 背景 コンテキスト",
    "prompt": "prompt プロンプト",
    "completion": "completion 補完",
    "messages": "messages メッセージ",
}
MEANING = {name: key for key, names in SYNONYMS.items() for name in names.split()}


def plain(name: str) -> str:
    """Return a name without what people do not see: case, width, spaces around it."""
    return unicodedata.normalize("NFKC", name).strip().strip("\ufeff:").strip().casefold()


def known(names: Iterable[str]) -> int:
    """Count the names that mean something."""
    return sum(plain(name) in MEANING for name in names)


@lru_cache(maxsize=16)
def named(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the key that each name means, or the plain name itself; raise BadRow."""
    own = [plain(name) for name in names]
    if _is_form(own):
        # The very words of a format: what else would be a synonym is a column like any other.
        _refuse_twice([name for name in own if name in KNOWN_KEYS])
        return tuple(own)
    keys = [MEANING.get(name, name) for name in own]
    if "instruction" not in keys and "input" in keys:
        keys = ["instruction" if key == "input" else key for key in keys]
    _refuse_twice([key for key in keys if key in KNOWN_KEYS])
    return tuple(keys)


def columns_of(names: list[str], line: int = 1) -> list[str]:
    """Return the keys of a table's header; raise Unreadable."""
    try:
        keys = list(named(tuple(names)))
        format_of(set(keys))
    except BadRow as error:
        twice = str(error) if str(error) != EXPECTED else f"the header is not understood: {error}"
        raise Unreadable(line, twice) from None
    return keys


def cells_as_row(columns: list[str], cells: list[str]) -> dict[str, Any] | BadRow:
    """Return a table's row by its columns."""
    if any(cells[len(columns) :]):
        return BadRow(f"more cells than the header's {len(columns)} columns")
    padded = cells + [""] * (len(columns) - len(cells))
    row: dict[str, Any] = {name: cell for name, cell in zip(columns, padded, strict=False) if name}
    if "messages" in row:
        try:
            row["messages"] = json.loads(row["messages"])
        except (ValueError, RecursionError):
            return BadRow('"messages" does not hold valid JSON')
    return row


def _is_form(names: list[str]) -> bool:
    try:
        format_of(set(names))
    except BadRow:
        return False
    return True


def _refuse_twice(keys: list[str]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise BadRow(f'{keys.count(key)} columns or keys stand for "{key}"; keep one of them')
