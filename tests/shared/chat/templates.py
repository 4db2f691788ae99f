"""Chat templates of many shapes, and base models that have them."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

MODELS = Path(__file__).parents[3] / ".models"
BASE = MODELS / "smollm2-135m-instruct"


CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You are helpful.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string }}<|eot_id|>"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    "{{ bos_token }}{%- for m in turns %}{%- if m.role == 'user' %}"
    "{{ '[INST] ' }}{%- if loop.first and system is defined %}{{ system + '\n\n' }}{%- endif %}"
    "{{ m.content + ' [/INST]' }}{%- else %}{{ ' ' + m.content + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
MISTRAL_LAST = MISTRAL.replace("loop.first and", "loop.last and").replace(
    "loop.last and system is defined",
    "loop.index >= loop.length - 1 and system is defined",
)
QWEN3 = (
    "{%- set last = namespace(user=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set last.user = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set text = m.content %}{%- if m.role == 'assistant' %}"
    "{%- if '</think>' in text %}{%- set text = text.split('</think>')[-1] %}{%- endif %}"
    "{{ '<|im_start|>assistant\n' }}{%- if loop.index0 > last.user %}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif %}{{ text + '<|im_end|>\n' }}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
WORDS = {
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "gemma": ["<bos>", "<start_of_turn>", "<end_of_turn>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "qwen3": ["<think>", "</think>"],
}
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "mistral-last": MISTRAL_LAST,
    "qwen3": QWEN3,
}
SPECIAL = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>"},
    "gemma": {"bos_token": {"content": "<bos>"}, "eos_token": "<|endoftext|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>"},
}


def make_base(folder: Path, template: str, name: str) -> Path:
    """Write the installed base's tokenizer with another template's words and template."""
    kind = name.partition("-")[0]
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(w, normalized=True) for w in WORDS.get(kind, [])])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((BASE / "tokenizer_config.json").read_text()) | SPECIAL.get(kind, {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder
