"""The generic path: any decoder's layers as transformers wrote them, with what is frozen left out.

Every layer's ``forward`` is switched: below the first trained layer it can hand on what it is given
and then nothing is computed; at that layer it takes the states that were kept, or gives those that
have come. So masks, positions, norms and scalings stay transformers' own. Rows are padded at their
end: attention is causal, so that no token of a row sees the padding. The head is computed at answer
positions only, with whatever the model does to its logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import MoeModelOutputWithPast

from services.worker.training.decoder import checksum, linear_shapes, run_layer
from services.worker.training.lora import Linears, LoraWeights
from services.worker.training.ops import AnswerLoss, LowRank, Select, Spread, apply, tensor
from services.worker.training.pack import Pack


class GenericDecoder:
    """A transformers model on packed rows; see decoder.Decoder."""

    path = "generic"
    shares_beginnings = False

    def __init__(self, model: Any) -> None:
        """Take over ``model``: its layers obey this object from now on."""
        self._model = model
        self._decoder = model.get_decoder()
        self._weights = list(model.state_dict().values())
        shapes = linear_shapes(model)
        products: dict[str, tuple[str, ...]] = {name: (name,) for name in shapes}
        self.linears = Linears(shapes, products, model.device, model.dtype)
        self.width: int = model.get_input_embeddings().embedding_dim
        self._run = range(0)
        """Layers that are computed at the moment."""
        self._entering: Tensor | None = None
        """States [B, R, D] that the first of them takes, or has been given."""
        self._adapter: LoraWeights | None = None
        self._recompute = False
        self._layers = _layers(self._decoder, model.config.get_text_config().num_hidden_layers)
        for number, layer in enumerate(self._layers):
            layer.forward = self._switched(number, layer.forward)
        for name in shapes:
            model.get_submodule(name).register_forward_hook(self._adapting(name))
        # From here on the model is its head alone: its decoder hands on what it is given.
        _replace(model, self._decoder, _Nothing())

    def checksum(self) -> str:
        """Hash of every weight."""
        return checksum(self._weights)

    def below(self, pack: Pack, layer: int) -> Tensor:
        """Return the states that enter ``layer``, [T, D]."""
        self._run = range(layer)
        self._decode(pack)
        entering, self._entering = self._entering, None
        assert entering is not None  # noqa: S101  set by the layer behind the run
        return tensor(Select, entering.flatten(0, 1), pack.collect)

    def above(
        self,
        states: Tensor,
        pack: Pack,
        layer: int,
        adapter: LoraWeights | None = None,
        *,
        recompute: bool = False,
    ) -> Tensor:
        """Run ``layer`` and all that follow, and the final norm, [N, D]."""
        padded = tensor(Spread, states, pack.spread, pack.collect)
        self._run = range(layer, len(self._layers))
        self._entering = padded.view(len(pack.rows), -1, self.width)
        self._recompute = recompute
        try:
            with self._adapted_by(adapter):
                final = self._decode(pack)  # [B, R, D]
        finally:
            self._entering, self._recompute = None, False
        return tensor(Select, final.flatten(0, 1), pack.collect[pack.predicting])

    def answer_loss(self, states: Tensor, pack: Pack) -> tuple[Tensor, int]:
        """Summed loss of the pack's answer tokens and how many the model would have chosen."""
        loss, correct = apply(AnswerLoss, states, self._head, pack.targets)
        return loss, int(correct)

    def logprobs(self, states: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each of ``targets`` [N]."""
        logprobs = self._head(states).float().log_softmax(-1)
        return logprobs.gather(1, targets[:, None])[:, 0]

    def _head(self, states: Tensor) -> Tensor:
        """Logits [N, V] of states as they leave the final norm."""
        logits: Tensor = self._model(inputs_embeds=states[None], use_cache=False).logits[0]
        return logits

    def _decode(self, pack: Pack) -> Tensor:
        """Run the decoder on the padded rows, [B, R, D]; which layers compute is set before."""
        token_ids = pack.token_ids[pack.spread].view(len(pack.rows), -1)  # [B, R]
        final: Tensor = self._decoder(input_ids=token_ids, use_cache=False).last_hidden_state
        return final

    def _switched(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """``forward`` of layer ``number``, which computes only where it is its turn."""

        def switched(hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
            if number == self._run.stop:
                self._entering = hidden_states
            if number not in self._run:
                return hidden_states
            if number == self._run.start and self._entering is not None:
                hidden_states = self._entering
            adapter, recompute = self._adapter, self._recompute

            def computed(*arguments: Any, **options: Any) -> Any:
                # The backward pass may call it again, long after this one.
                with self._adapted_by(adapter):
                    return forward(*arguments, **options)

            return run_layer(computed, hidden_states, *arguments, recompute=recompute, **options)

        return switched

    @contextmanager
    def _adapted_by(self, adapter: LoraWeights | None) -> Iterator[None]:
        before, self._adapter = self._adapter, adapter
        try:
            yield
        finally:
            self._adapter = before

    def _adapting(self, name: str) -> Callable[..., Tensor | None]:
        """Make the hook that adds the adapter's part to the linear module called ``name``."""

        def adapted(_: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._adapter is None or name not in self._adapter.products:
                return None
            (part,) = self._adapter.products[name]
            adapter = self._adapter
            return output + tensor(LowRank, arguments[0], adapter.weights, part, adapter.scale)

        return adapted


class _Nothing(torch.nn.Module):
    """A decoder that has already run; mixtures of experts look for more than states, in vain."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


def _layers(decoder: torch.nn.Module, count: int) -> torch.nn.ModuleList:
    """Find the decoder's layers, whatever they are called."""
    return next(
        module
        for module in decoder.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    )


def _replace(model: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    """Put ``new`` where ``old`` is inside ``model``."""
    path = next(name for name, module in model.named_modules() if module is old)
    model.set_submodule(path, new)
