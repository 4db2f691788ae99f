# Inference: vLLM on the CPU with Tailor's plugin and guard.
FROM python:3.11-slim-bookworm

# vLLM's CPU library links libnuma, and no wheel ships it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home tailor \
    && install --directory --owner tailor --mode 0700 /data/store /data/inference
WORKDIR /app

# Dependencies first: this layer is built again only when the lock changes. The three companions
# that vLLM drags in are built for CUDA and break `import transformers` beside a CPU torch.
COPY pyproject.toml constraints.txt README.md LICENSE ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" \
        '.[inference]' \
    && pip uninstall --yes torchvision torchaudio torchcodec

COPY shared ./shared
COPY services/__init__.py ./services/
COPY services/inference ./services/inference

# vLLM starts processes of its own: they find the plugin's code here.
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app
USER tailor
CMD ["python", "-m", "services.inference"]
