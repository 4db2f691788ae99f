# The worker and its trainer: torch, no vLLM. For NVIDIA GPUs see deploy/docker/cuda.yml.
FROM python:3.11-slim-bookworm
# Empty, or -cuda.
ARG VARIANT=

RUN useradd --uid 10001 --create-home tailor \
    && install --directory --owner tailor --mode 0700 /data/store
WORKDIR /app

# Dependencies first: this layer is built again only when the lock changes.
COPY pyproject.toml constraints.txt constraints-cuda.txt README.md LICENSE ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint "constraints$VARIANT.txt" --extra-index-url "$TORCH_INDEX" \
    '.[worker]'

COPY shared ./shared
COPY services/__init__.py ./services/
COPY services/worker ./services/worker

ENV PYTHONUNBUFFERED=1
USER tailor
CMD ["python", "-m", "services.worker"]
