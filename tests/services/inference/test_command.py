"""vLLM's command line follows the catalog and keeps dangerous doors shut."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.inference.command import vllm_command, vllm_environment
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog

ENTRY = load_catalog().get("smollm2-135m-instruct")


@pytest.fixture
def settings(tmp_path: Path) -> InferenceSettings:
    return InferenceSettings(
        store_dir=tmp_path,
        models_dir=tmp_path / "models",
        inference_secret="s",
        inference_state_dir=tmp_path,
        inference_threads=2,
    )


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_vllm_wraps_exactly_the_modules_that_may_be_trained(settings: InferenceSettings) -> None:
    command = vllm_command(settings, ENTRY)
    modules = command[command.index("--lora-target-modules") + 1 :]
    assert modules == ENTRY.runtime_modules()
    assert "model.layers.20.self_attn.qkv_proj" in modules
    assert not [name for name in modules if ".layers.19." in name]
    assert option(command, "--max-lora-rank") == "16"
    assert option(command, "--max-loras") == str(ENTRY.serving.max_loras)


def test_the_guard_and_a_fixed_chat_template_are_always_given(settings: InferenceSettings) -> None:
    command = vllm_command(settings, ENTRY)
    assert option(command, "--middleware") == "services.inference.guard.Guard"
    files = str(settings.chat_folder)
    assert option(command, "--tokenizer") == option(command, "--generation-config") == files
    assert option(command, "--chat-template") == f"{files}/chat_template.jinja"
    assert option(command, "--served-model-name") == "smollm2-135m-instruct"
    assert not {"--trust-remote-code", "--enable-log-requests"} & set(command)


def test_only_the_cpu_build_is_kept_from_compiling(settings: InferenceSettings) -> None:
    cpu = vllm_environment(settings, Path("/scratch"))
    gpu_settings = settings.model_copy(update={"inference_device": "cuda"})
    gpu = vllm_environment(gpu_settings, Path("/scratch"))
    assert cpu["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in gpu
    assert "--enforce-eager" in vllm_command(settings, ENTRY)
    assert "--enforce-eager" not in vllm_command(gpu_settings, ENTRY)


@pytest.mark.parametrize(("device", "fast"), [("cpu", True), ("cpu", False), ("cuda", False)])
def test_bf16_is_computed_in_float32_where_the_processor_has_no_instructions_for_it(
    settings: InferenceSettings, monkeypatch: pytest.MonkeyPatch, device: str, fast: bool
) -> None:
    monkeypatch.setattr("services.inference.command.has_instructions_for_bf16", lambda: fast)
    asked = settings.model_copy(update={"inference_device": device})
    wanted = "float32" if device == "cpu" and not fast else "bfloat16"
    assert option(vllm_command(asked, ENTRY), "--dtype") == wanted


def test_only_our_plugin_is_loaded_and_nothing_is_fetched(settings: InferenceSettings) -> None:
    environment = vllm_environment(settings, Path("/scratch"))
    assert environment["VLLM_PLUGINS"] == "tailor"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["TMPDIR"] == "/scratch"


def test_what_vllms_processes_log_is_json_and_the_resolver_is_heard(
    settings: InferenceSettings,
) -> None:
    path = vllm_environment(settings, Path("/scratch"))["VLLM_LOGGING_CONFIG_PATH"]
    program = f"""
import json, logging.config
logging.config.dictConfig(json.load(open({path!r})))
logging.getLogger("vllm.engine").info("loading %s", "weights")
logging.getLogger("vllm.tailor.resolver").warning("refused", extra={{"event": "adapter_refused"}})
logging.getLogger("uvicorn.error").error("an exception")
logging.getLogger("httpx").info("a request")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["loading weights", "refused", "an exception"]
    assert lines[1]["event"] == "adapter_refused"
    assert {line["service"] for line in lines} == {"inference"}
