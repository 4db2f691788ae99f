"""Writes the tokenizer, chat template and generation config that vLLM is started with.

``python -m services.inference.chat_files BASE_FOLDER TARGET``: a process of its own, so that the
supervisor need not keep the libraries in memory.
"""

import sys
from pathlib import Path

from shared.chat.encoder import ChatEncoder


def write_chat_files(base: Path, target: Path) -> None:
    """Write to ``target`` how the base model in ``base`` reads a chat; see shared/chat/base.py."""
    encoder = ChatEncoder(base)
    encoder.base.write(target, encoder.turn_end)


if __name__ == "__main__":
    write_chat_files(Path(sys.argv[1]), Path(sys.argv[2]))
