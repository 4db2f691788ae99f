# Inference: vLLM with Tailor's plugin and guard. For NVIDIA GPUs see deploy/docker/cuda.yml.
FROM python:3.11-slim-bookworm
# Empty, or -cuda.
ARG VARIANT=

# vLLM's CPU library links libnuma, and no wheel ships it; on GPUs Triton calls a C compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 ${VARIANT:+gcc libc6-dev} \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home tailor \
    && install --directory --owner tailor --mode 0700 /data/store /data/inference
WORKDIR /app

# Dependencies first: this layer is built again only when the lock changes. The three companions
# that vLLM drags in are built for CUDA and break `import transformers` beside a CPU torch.
COPY pyproject.toml constraints.txt constraints-cuda.txt README.md LICENSE ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint "constraints$VARIANT.txt" --extra-index-url "$TORCH_INDEX" \
        ".[inference$VARIANT]" \
    && if [ -z "$VARIANT" ]; then pip uninstall --yes torchvision torchaudio torchcodec; fi

COPY shared ./shared
COPY services/__init__.py ./services/
COPY services/inference ./services/inference

# vLLM starts processes of its own: they find the plugin's code here.
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app
USER tailor
CMD ["python", "-m", "services.inference"]
