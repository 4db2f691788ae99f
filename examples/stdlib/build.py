"""Real text nobody here wrote: first sentences of docstrings, and the module each belongs to.

Reads the source of this interpreter's standard library (no import), so that the result depends on
nothing but the Python release: ``python -m examples.stdlib.build FOLDER`` writes the two files.
"""

import ast
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from examples.rows import Row, row, to_jsonl

MODULES = (
    "asyncio",
    "datetime",
    "email",
    "ftplib",
    "http",
    "imaplib",
    "ipaddress",
    "logging",
    "mailbox",
    "multiprocessing",
    "statistics",
    "tarfile",
    "unittest",
    "xml",
)
TRAIN_PER_MODULE = 48
HELD_OUT_PER_MODULE = 8, 17
"""The least and the most: a small module keeps its functions for training."""
QUESTION = "Which module of the Python standard library does this describe?\n\n{sentence}"


class Function(NamedTuple):
    """One documented function or method; its name stands for all of that name in the module."""

    module: str
    name: str
    sentence: str
    """The first of its docstring."""


def build() -> tuple[list[Row], list[Row]]:
    """Return the training rows and the held-out rows, all in OpenAI's chat format."""
    train, held_out = split()
    return [_row(function) for function in train], [_row(function) for function in held_out]


def split() -> tuple[list[Function], list[Function]]:
    """Return the functions to train on and those held out, module by module, in a fixed order."""
    taken: set[str] = set()
    train, held_out = [], []
    for module in MODULES:
        functions = sorted(_functions(module, taken), key=_shuffle_key)
        least, most = HELD_OUT_PER_MODULE
        asked = min(most, max(least, len(functions) - TRAIN_PER_MODULE))
        held_out += functions[:asked]
        train += functions[asked:][:TRAIN_PER_MODULE]
    return train, held_out


def _functions(module: str, taken: set[str]) -> Iterator[Function]:
    """Yield each function name of the module once, with a sentence nobody has used before."""
    names: set[str] = set()
    for path in _sources(module):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            sentence = _first_sentence(ast.get_docstring(node) or "")
            if len(sentence) < 20 or node.name in names or sentence.casefold() in taken:
                continue
            names.add(node.name)
            taken.add(sentence.casefold())
            yield Function(module, node.name, sentence)


def _sources(module: str) -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    single = library / f"{module}.py"
    if single.exists():
        return [single]
    return sorted(p for p in (library / module).rglob("*.py") if "test" not in p.parts)


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0][:200]


def _shuffle_key(function: Function) -> str:
    """Order by hash of the qualified name: fixed, and blind to where a function stands."""
    return hashlib.sha256(f"{function.module}.{function.name}".encode()).hexdigest()


def _row(function: Function) -> Row:
    return row(QUESTION.format(sentence=function.sentence), function.module)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    train_rows, held_out_rows = build()
    (folder / "train.jsonl").write_text(to_jsonl(train_rows), encoding="utf-8")
    (folder / "held_out.jsonl").write_text(to_jsonl(held_out_rows), encoding="utf-8")
    print(f"{len(train_rows)} training rows, {len(held_out_rows)} held-out rows")
