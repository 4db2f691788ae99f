"""Text split into passages that end where paragraphs or sentences do."""

import re

from semantic_text_splitter import TextSplitter

PASSAGE = (300, 800)
"""Characters: a passage is full from the first figure on and never longer than the second."""
# The splitter's time grows with the square of a line's length: longer ones are broken before.
_LONG_LINE = re.compile(r"[^\n]{1000,1999}[\s。.!?！？]|[^\n]{2000}")
_BLOCK = 20_000


def split(text: str) -> list[str]:
    """Return a text's passages in their order, none empty."""
    splitter = TextSplitter(PASSAGE)
    lines = _LONG_LINE.sub(lambda match: match[0] + "\n", text)
    return [passage for block in _blocks(lines) for passage in splitter.chunks(block)]


def _blocks(text: str) -> list[str]:
    """Cut at line ends, so that the splitter never sees more than it can do at once."""
    blocks, start = [], 0
    while start < len(text):
        end = min(start + _BLOCK, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        blocks.append(text[start:end])
        start = end
    return blocks
