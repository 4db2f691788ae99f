"""What vLLM's own scheduler computes in one step, with newcomers among its requests."""

import pytest
import torch
from vllm import SamplingParams
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from services.inference.newcomers import NEWCOMER, NewcomersFirst
from tests.services.inference.server import BASE_MODEL, MODELS_DIR

MOST = 4
"""Sequences that may run at once."""


class Engine:
    """The scheduler, and a model whose every token is 7."""

    def __init__(self) -> None:
        model = ModelConfig(
            model=str(MODELS_DIR / BASE_MODEL), dtype="bfloat16", max_model_len=512, seed=0
        )
        config = VllmConfig(
            model_config=model,
            device_config=DeviceConfig("cpu"),
            cache_config=CacheConfig(block_size=16, enable_prefix_caching=False),
            scheduler_config=SchedulerConfig(
                max_num_seqs=MOST,
                max_num_batched_tokens=64,
                max_model_len=512,
                is_encoder_decoder=False,
                policy="priority",
            ),
        )
        config.cache_config.num_gpu_blocks = 64
        spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler = NewcomersFirst(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=64,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
            ),
            structured_output_manager=StructuredOutputManager(config),
            block_size=16,
        )

    def ask(self, name: str, priority: int = NEWCOMER, tokens: int = 8) -> None:
        """Add a request."""
        options = SamplingParams(max_tokens=100, ignore_eos=True)
        self.scheduler.add_request(
            Request(
                request_id=name,
                prompt_token_ids=[3] * tokens,
                sampling_params=options,
                pooling_params=None,
                priority=priority,
            )
        )

    def step(self) -> list[str]:
        """Compute one step; return whose."""
        planned: SchedulerOutput = self.scheduler.schedule()
        names = list(planned.num_scheduled_tokens)
        self.scheduler.update_from_output(
            planned,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: index for index, name in enumerate(names)},
                sampled_token_ids=[[7] for _ in names],
            ),
        )
        return sorted(names)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_a_newcomer_begins_in_a_step_of_its_own(engine: Engine) -> None:
    for number in range(1, 3):
        engine.ask(f"flood {number}", priority=number)
    assert engine.step() == ["flood 1", "flood 2"]
    engine.ask("flood 3", priority=3, tokens=200)
    engine.ask("newcomer")
    assert engine.step() == ["newcomer"]
    assert engine.step() == ["flood 1", "flood 2", "flood 3", "newcomer"]


def test_newcomers_never_take_two_steps_in_a_row(engine: Engine) -> None:
    engine.ask("flood", priority=1)
    assert engine.step() == ["flood"]
    engine.ask("first")
    assert engine.step() == ["first"]
    engine.ask("second")
    assert engine.step() == ["first", "flood", "second"]


def test_without_others_a_newcomer_is_computed_as_ever(engine: Engine) -> None:
    engine.ask("first")
    engine.ask("waiting", priority=1)
    assert engine.step() == ["first", "waiting"]


def test_a_newcomer_does_not_push_anybody_out(engine: Engine) -> None:
    names = [f"flood {number}" for number in range(1, MOST + 1)]
    for number, name in enumerate(names, start=1):
        engine.ask(name, priority=number)
    assert engine.step() == names
    engine.ask("newcomer")
    assert engine.step() == names
    engine.scheduler.finish_requests(names[0], RequestStatus.FINISHED_ABORTED)
    assert engine.step() == ["newcomer"]
    assert engine.step() == [*names[1:], "newcomer"]


def test_who_waits_keeps_the_order(engine: Engine) -> None:
    engine.ask("flood 1", priority=1)
    engine.step()
    engine.ask("flood 3", priority=3, tokens=64)
    engine.ask("flood 2", priority=2, tokens=63)
    engine.ask("newcomer")
    assert engine.step() == ["newcomer"]
    assert engine.step() == ["flood 1", "flood 2", "newcomer"]
