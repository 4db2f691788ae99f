"""Writes the tokenizer, chat template and generation config that vLLM is started with.

``python -m services.inference.chat_files BASE_FOLDER TARGET``: a process of its own, so that the
supervisor need not keep the libraries in memory.
"""

import json
import sys
from pathlib import Path

from shared.chat.encoder import ChatEncoder

PLAIN_KIND = {"model_type": "llama", "transformers_version": "5.0.0"}
"""vLLM asks a tokenizer's folder for the model's kind. For some of them (Qwen2 among these)
transformers then builds a tokenizer of its own, with another normalizer than the file's; not for
this one; and without a version it warns of an old mistake in others' files."""


def write_chat_files(base: Path, target: Path) -> None:
    """Write to ``target`` how the base model in ``base`` reads a chat; see shared/chat/base.py."""
    encoder = ChatEncoder(base)
    encoder.base.write(target, encoder.turn_end)
    (target / "config.json").write_text(json.dumps(PLAIN_KIND))


if __name__ == "__main__":
    write_chat_files(Path(sys.argv[1]), Path(sys.argv[2]))
