"""A random Llama and Qwen2 of 4 layers with a byte tokenizer; the trainer here or in a process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from services.worker.spec import TrainerMessage, TrainSpec, trainer_message
from services.worker.training.decoder import load_model
from services.worker.training.fused import FusedDecoder
from services.worker.training.signals import Signals
from services.worker.training.warm_trainer import WarmTrainer
from shared.catalog import (
    DESCRIPTION,
    AdapterProfile,
    Architecture,
    BaseModelEntry,
    Defaults,
    Linear,
    LocalSource,
    Serving,
    load_catalog,
)
from shared.jobs.hyperparameters import Hyperparameters
from shared.storage import sha256_of

ROOT = Path(__file__).parents[4]
# With tensors so small threads only wait for each other, and for the other test process's.
torch.set_num_threads(1)
PATIENCE_SECONDS = 180
"""A process imports torch before it speaks; that takes long on a busy machine."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINEARS = {
    "self_attn.q_proj": Linear(inputs=32, outputs=32, runtime="self_attn.qkv_proj"),
    "self_attn.k_proj": Linear(inputs=32, outputs=16, runtime="self_attn.qkv_proj"),
    "self_attn.v_proj": Linear(inputs=32, outputs=16, runtime="self_attn.qkv_proj"),
    "self_attn.o_proj": Linear(inputs=32, outputs=32, runtime="self_attn.o_proj"),
    "mlp.gate_proj": Linear(inputs=32, outputs=48, runtime="mlp.gate_up_proj"),
    "mlp.up_proj": Linear(inputs=32, outputs=48, runtime="mlp.gate_up_proj"),
    "mlp.down_proj": Linear(inputs=48, outputs=32, runtime="mlp.down_proj"),
}
TINY = BaseModelEntry(
    name="tiny",
    description="random",
    context_length=256,
    stop_token_ids=(2,),
    dtype="float32",
    weights={"model.safetensors": "0" * 64},
    source=LocalSource(kind="folder", path="/nowhere"),
    architecture=Architecture(
        name="LlamaForCausalLM",
        layers=4,
        layers_path="model.layers",
        linears=LINEARS,
        tied_head=False,
    ),
    profile=AdapterProfile(
        first_trained_layer=2, last_trained_layer=3, modules=tuple(LINEARS), max_rank=8
    ),
    defaults=Defaults(rank=8, alpha=16, learning_rate=1e-2, batch_size=4),
    serving=Serving(max_loras=1, logprob_tolerance=0.1),
)


def describe(folder: Path) -> None:
    """Write what is known of the tiny model whose weights lie in ``folder``."""
    weights = {path.name: sha256_of(path) for path in folder.glob("*.safetensors")}
    entry = TINY.model_copy(update={"weights": weights})
    (folder / DESCRIPTION).write_text(entry.model_dump_json())


def save_tokenizer(folder: Path) -> int:
    """Write a tokenizer of bytes with a ChatML template; return its number of words."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    return len(words)


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "dtype": "float32",
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the base model, described."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    words = save_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=words, tie_word_embeddings=True, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    describe(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a Qwen2: with biases at q, k and v, and an output matrix of its own."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2"
    words = save_tokenizer(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=words, tie_word_embeddings=False, **SHAPE))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)  # they begin as zero, which would hide their lack
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["llama", "qwen2"])
def base_dir(request: pytest.FixtureRequest, tiny: Path, tiny_qwen2: Path) -> Path:
    """Folder of each of the two kinds of decoder."""
    return tiny if request.param == "llama" else tiny_qwen2


@pytest.fixture(scope="session")
def base(base_dir: Path) -> FusedDecoder:
    return FusedDecoder(load_model(base_dir, torch.device("cpu")))


@pytest.fixture(scope="session")
def models_dir(tiny: Path) -> Path:
    return tiny.parent


def chat(question: str, answer: str, line: int = 1, **weight: int) -> dict[str, Any]:
    return {
        "line": line,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **weight},
        ],
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """24 rows of uneven length, some in Japanese."""
    rows = [
        chat(
            f"営業時間 {i}は?" if i % 3 else f"Which part has shelf {i}{'!' * i}",
            f"{i}時です" if i % 3 else f"A{i}",
            line=i + 1,
        )
        for i in range(24)
    ]
    return write_rows(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def make_spec(tiny: Path, rows_file: Path, tmp_path: Path) -> Callable[..., TrainSpec]:
    def make(attempt: int = 1, **changes: Any) -> TrainSpec:
        numbers = {
            "n_epochs": 3,
            "batch_size": 4,
            "learning_rate_multiplier": 1,
            "learning_rate": 0.01,
            "rank": 8,
            "alpha": 16,
            "early_stopping_patience": 50,
        } | {key: changes.pop(key) for key in list(changes) if key in Hyperparameters.model_fields}
        values: dict[str, Any] = {
            "job_id": "ftjob-test",
            "attempt": attempt,
            "base_model": "tiny",
            "base_dir": tiny,
            "base_sha256": "0" * 64,
            "train_rows": rows_file,
            "validation_rows": None,
            "attempt_dir": tmp_path / "attempts" / str(attempt),
            "resume_from": (),
            "hyperparameters": numbers,
            "seed": 7,
            "checkpoint_seconds": 1e-9,  # after every step
            "threads": 1,
        }
        return TrainSpec.model_validate(values | changes)

    return make


def silent(message: TrainerMessage) -> None:
    """Listen to nothing."""


class Trainer:
    """The warm trainer in this process, with what it reported."""

    def __init__(self, models_dir: Path | None) -> None:
        self.messages: list[TrainerMessage] = []
        self.signals = Signals()
        self.on_message: Callable[[TrainerMessage], None] = silent
        self.warm_trainer = WarmTrainer(load_catalog(models_dir), self.signals, self._emit)

    def _emit(self, message: TrainerMessage) -> None:
        self.messages.append(message)
        self.on_message(message)

    def train(self, spec: TrainSpec) -> Any:
        """Run ``spec`` and return its last message."""
        self.signals.clear()
        self.warm_trainer.run(spec)
        return self.messages[-1]

    def of(self, kind: str) -> list[Any]:
        return [message for message in self.messages if message.kind == kind]


@pytest.fixture
def trainer(models_dir: Path) -> Iterator[Trainer]:
    threads = torch.get_num_threads()
    yield Trainer(models_dir)
    torch.set_num_threads(threads)


class TrainerProcess:
    """The trainer as the supervisor starts it."""

    def __init__(
        self, models_dir: Path | None, parent: int | None = None, processes: int = 1
    ) -> None:
        command = [sys.executable, "-m", "services.worker.training"]
        command += ["--parent", str(os.getpid() if parent is None else parent)]
        command += ["--models-dir", str(models_dir)] if models_dir else []
        command += ["--processes", str(processes)] if processes > 1 else []
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def send(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def next(self, timeout: float = PATIENCE_SECONDS) -> TrainerMessage:
        return trainer_message.validate_json(self._lines.get(timeout=timeout))

    def until(self, kind: str) -> Any:
        """Read messages up to the first of ``kind``."""
        while True:
            message = self.next()
            if message.kind == kind:
                return message
            assert message.kind != "error", message

    def rest(self) -> list[TrainerMessage]:
        """What was still said before the process ended."""
        self.process.wait(PATIENCE_SECONDS)
        found = []
        while True:
            try:
                found.append(self.next(timeout=0.2))
            except Empty:
                return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def start_process(models_dir: Path) -> Iterator[Callable[..., TrainerProcess]]:
    started: list[TrainerProcess] = []

    def start(
        chosen: Path | None = models_dir, parent: int | None = None, processes: int = 1
    ) -> TrainerProcess:
        started.append(TrainerProcess(chosen, parent, processes))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB of its own, which only root may make."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
