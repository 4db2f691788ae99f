"""vLLM's own scheduler with our rule, before a model that is not there. Importing takes seconds."""

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


class Steps:
    """The scheduler, and a model whose every token is 7."""

    most = 4
    """Sequences that may run at once."""

    def __init__(self) -> None:
        model = ModelConfig(
            model=str(MODELS_DIR / BASE_MODEL), dtype="bfloat16", max_model_len=512, seed=0
        )
        config = VllmConfig(
            model_config=model,
            device_config=DeviceConfig("cpu"),
            cache_config=CacheConfig(block_size=16, enable_prefix_caching=False),
            scheduler_config=SchedulerConfig(
                max_num_seqs=self.most,
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

    def end(self, name: str) -> None:
        """Abort a request."""
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

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
