# The comparer: the worker's part that asks the inference service; no torch, no vLLM.
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home tailor \
    && install --directory --owner tailor --mode 0700 /data/store
WORKDIR /app

# Dependencies first: this layer is built again only when the lock changes.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt '.[comparer]'

COPY shared ./shared
COPY services/__init__.py ./services/
COPY services/worker ./services/worker

ENV PYTHONUNBUFFERED=1
USER tailor
CMD ["python", "-m", "services.worker.comparing"]
