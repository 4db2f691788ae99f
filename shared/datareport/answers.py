"""Answers that teach nothing: no word in them, a placeholder, or the same one in many rows."""

import re

from shared.datareport.report import MAX_LINES, Found, Param
from shared.datareport.rows import Row, comparable, digest

MAX_REMEMBERED_ANSWERS = 200_000
MANY_ROWS = 12
MANY_SHARE = 0.03
"""An answer is repeated when at least so many rows, and so large a share of all, have it."""
SENTENCE_CHARACTERS = 12
"""Shorter repeated answers are labels, and meant to repeat."""

PLACEHOLDERS = frozenset(
    [
        "n/a", "na", "n.a", "none", "null", "nil", "nan", "undefined", "tbd", "tba", "todo",
        "fixme", "xxx", "test", "testing", "dummy", "sample", "placeholder", "lorem ipsum",
        "answer", "answer here", "your answer here", "insert answer here", "unknown", "idk",
        "i don't know", "i do not know", "i dont know", "i'm not sure", "i am not sure",
        "no idea", "no answer", "not available", "not applicable", "no comment",
        "same as above", "see above", "ditto", "coming soon", "#n/a", "#ref!", "わかりません",
        "分かりません", "わからない", "分からない", "わかりかねます", "分かりかねます",
        "知りません", "不明", "不明です", "未定", "未定です", "未入力", "未回答", "未記入",
        "未対応", "回答なし", "なし", "無し", "無回答", "特になし", "特にありません",
        "該当なし", "要確認", "確認中", "確認中です", "調査中", "準備中", "作成中", "検討中",
        "後で書く", "後で記入", "あとで書く", "テスト", "てすと", "ダミー", "サンプル", "仮",
        "同上", "上記参照", "同じ", "回答", "ああああ", "あああ", "ほげ", "hoge",
    ]
)  # fmt: skip
"""Whole answers, as ``comparable`` writes them."""
_OPENING = re.compile(
    r"(todo|tbd|fixme|lorem ipsum)\b|(as|i am|i'm) an ai( language)? (model|assistant)\b"
    r"|\[?(insert|your) [\w ]{0,30}here\b|(申し訳ありません(が)?[、,]?)?(私は)?aiである?(ため|ので)"
)
_WORD = re.compile(r"\w")


class Answers:
    """The check; ``done`` tells what only the whole file shows."""

    def __init__(self, found: Found, file: Param) -> None:
        self._found = found
        self._file = file
        self._rows = 0
        self._lines: dict[int, list[int]] = {}
        self._counts: dict[int, int] = {}

    def row(self, row: Row) -> None:
        """Look at one row."""
        self._rows += 1
        kind = next((kind for answer in row.answers if (kind := _fault(answer))), None)
        if kind:
            self._found.add(self._file, kind, row.line)
        elif len(row.answer) >= SENTENCE_CHARACTERS:
            self._remember(digest(row.answer), row.line)

    def done(self) -> None:
        """Name the rows of answers that very many rows share."""
        many = max(MANY_ROWS, MANY_SHARE * self._rows)
        for key, count in self._counts.items():
            if count >= many:
                lines = self._lines[key]
                for line in lines + [lines[-1]] * (count - len(lines)):
                    self._found.add(self._file, "repeated_answer", line)

    def _remember(self, key: int, line: int) -> None:
        if key in self._counts:
            self._counts[key] += 1
            if len(self._lines[key]) < MAX_LINES:
                self._lines[key].append(line)
        elif len(self._counts) < MAX_REMEMBERED_ANSWERS:
            self._counts[key], self._lines[key] = 1, [line]


def _fault(answer: str) -> str | None:
    if not _WORD.search(answer):
        return "empty_answer"
    text = comparable(answer).strip("()[]<>（）「」『』【】*_-~\"' ")
    if text in PLACEHOLDERS or not text:
        return "boilerplate_answer"
    return "boilerplate_answer" if _OPENING.match(text) else None
