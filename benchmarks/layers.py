"""Which layers to train: blocks at the bottom, in the middle, at the top, and all of them.

    python -m benchmarks.layers --results layers.jsonl --data company stdlib changelog --seeds 1 2 3

For each block, kind of data and seed: the share of held-out questions that is answered rightly, by
the question alone and with the three nearest training rows before it, the training's processor
seconds, and by how much the losses on general texts and instructions have risen (the trainer's own
figures). A block is a third of the layers. Training is the product's, as ``auto`` would do it;
questions are answered by transformers and PEFT, greedily. What ``--results`` holds already is not
done again. Prints a table of the means over the seeds.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.training import Task, trained
from examples.datasets import Data, DataSet, Question, data_set
from services.worker.comparing.prompts import messages, searched_text
from services.worker.comparing.retrieval import bm25
from services.worker.training.decoder import computed_in
from shared.catalog import BaseModelEntry, load_catalog
from shared.files.normalised import NormalisedRow
from shared.jobs.hyperparameters import Requested, resolve

ROOT = Path(__file__).parents[1]
SHOWN, BATCH = 3, 8
VALIDATION_ROWS = 8
FIGURES = ("alone", "shown", "processor_seconds", "text", "instructions")


def blocks(layers: int) -> dict[str, tuple[int, int]]:
    """Return first and last layer of each block."""
    third = layers // 3
    middle = (layers - third) // 2
    return {
        "bottom": (0, third - 1),
        "middle": (middle, middle + third - 1),
        "top": (layers - third, layers - 1),
        "all": (0, layers - 1),
    }


def main() -> None:
    """Do what the results lack, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--data", nargs="+", type=Data, default=[Data.COMPANY])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--rows", type=int, default=400, help="at most")
    parser.add_argument("--questions", type=int, default=50, help="at most")
    parser.add_argument("--models-dir", type=Path, default=ROOT / ".models")
    asked = parser.parse_args()
    entry = load_catalog(asked.models_dir).get(asked.base)
    base_dir = entry.folder(asked.models_dir.resolve())
    done = known(asked.results)
    with tempfile.TemporaryDirectory() as name:
        for data in asked.data:
            folder = Path(name) / data
            folder.mkdir()
            made = data_set(data, folder)
            lines = made.training_file.read_text(encoding="utf-8").splitlines()[: asked.rows]
            rows = [
                NormalisedRow.model_validate({"line": n, "messages": json.loads(line)["messages"]})
                for n, line in enumerate(lines, start=1)
            ]
            for seed in asked.seeds:
                for block, (first, last) in blocks(entry.architecture.layers).items():
                    key = {"base": entry.name, "data": data, "seed": seed, "block": block}
                    if key in done:
                        continue
                    output = folder / f"{block}-{seed}"
                    own = {"first_layer": first, "last_layer": last, "seed": seed}
                    figures = trained(task(entry, base_dir, rows, output, **own))
                    asker = Asker(base_dir, output / "adapter")
                    questions = made.questions[: asked.questions]
                    figures["alone"] = asker.right(made, questions, [])
                    figures["shown"] = asker.right(made, questions, rows)
                    with asked.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(key | figures) + "\n")
    show(asked.results)


def known(results: Path) -> list[dict[str, Any]]:
    """Return what has been measured, without its figures."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [{k: json.loads(line)[k] for k in ("base", "data", "seed", "block")} for line in lines]


def task(
    entry: BaseModelEntry, base_dir: Path, rows: Sequence[NormalisedRow], output: Path, **own: int
) -> Task:
    """Say what is trained: what ``auto`` makes of so many rows."""
    output.mkdir()
    hyperparameters = resolve(Requested(), len(rows), entry)
    files = {"train": rows[:-VALIDATION_ROWS], "validation": rows[-VALIDATION_ROWS:]}
    for name, part in files.items():
        text = "\n".join(row.model_dump_json() for row in part) + "\n"
        (output / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return Task(
        arm="fused",
        base_dir=str(base_dir),
        train_rows=str(output / "train.jsonl"),
        validation_rows=str(output / "validation.jsonl"),
        output_dir=str(output),
        epochs=hyperparameters.n_epochs,
        batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        rank=hyperparameters.rank,
        alpha=hyperparameters.alpha,
        **own,
    )


class Asker:
    """A base model with an adapter, by transformers and PEFT."""

    def __init__(self, base_dir: Path, adapter: Path) -> None:
        dtype = computed_in(torch.device("cpu"))
        base: Any = AutoModelForCausalLM.from_pretrained(base_dir, dtype=dtype)
        self._model: Any = PeftModel.from_pretrained(base, str(adapter)).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(base_dir, padding_side="left")

    def right(
        self, made: DataSet, questions: Sequence[Question], rows: Sequence[NormalisedRow]
    ) -> float:
        """Return the share of right answers, with the nearest of ``rows`` before each question."""
        nearest = bm25([searched_text(row.messages[:-1]) for row in rows])
        asked = []
        for question in questions:
            found = nearest.rank(question.text, SHOWN) if rows else []
            row = NormalisedRow.model_validate({"line": 1, "messages": question.messages})
            asked.append(messages(row.messages, [rows[i] for i in reversed(found)]))
        order = sorted(range(len(asked)), key=lambda i: len(str(asked[i])))
        passed = 0
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            answers = self._answers([asked[i] for i in batch], made.max_tokens)
            passed += sum(
                made.passes(questions[i], answer) for i, answer in zip(batch, answers, strict=True)
            )
        return passed / len(asked)

    @torch.no_grad()
    def _answers(self, asked: Sequence[Any], max_tokens: int) -> list[str]:
        inputs = self._tokenizer.apply_chat_template(
            list(asked),
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        written = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = written[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


def show(results: Path) -> None:
    """Print the means over the seeds."""
    found: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
    for line in results.read_text(encoding="utf-8").splitlines():
        each = json.loads(line)
        each["text"] = each["text_after"] / each["text_before"] - 1
        each["instructions"] = each["instructions_after"] / each["instructions_before"] - 1
        found[each["base"], each["data"], each["block"]].append(each)
    print("| base | data | block | seeds | right | right with rows | processor s ", end="")
    print("| general text | instructions |\n|---|---|---|---|---|---|---|---|---|")
    for (base, data, block), runs in found.items():
        alone, shown, seconds, text, instructions = (
            statistics.fmean(run[figure] for run in runs) for figure in FIGURES
        )
        print(
            f"| {base} | {data} | {block} | {len(runs)} | {alone:.0%} | {shown:.0%} "
            f"| {seconds:.0f} | {text:+.1%} | {instructions:+.1%} |"
        )


if __name__ == "__main__":
    main()
