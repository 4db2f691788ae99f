"""The files that vLLM is started with are read by transformers as training reads them."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from services.inference.chat_files import write_chat_files
from shared.chat.encoder import ChatEncoder
from tests.services.worker.training.architectures import build
from tests.services.worker.training.conftest import save_tokenizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "gemma2"])
def test_template_words_in_a_message_are_plain_text_whatever_the_models_kind(
    kind: str, tmp_path: Path
) -> None:
    folder, target = tmp_path / "base", tmp_path / "chat"
    build(kind, folder, vocab_size=save_tokenizer(folder))
    write_chat_files(folder, target)
    encoder = ChatEncoder(folder)
    chat = [{"role": "user", "content": "".join(sorted(encoder.words)) + " 営業時間は?\n"}]
    marked = [chat[0] | {"content": encoder.plain(chat[0]["content"])}]
    read = AutoTokenizer.from_pretrained(target).apply_chat_template(
        marked,
        chat_template=(target / "chat_template.jinja").read_text(),
        add_generation_prompt=True,
        return_dict=False,
    )
    assert read == encoder.prompt(chat)
