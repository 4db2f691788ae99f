"""URLs of OpenAI's that clients know and that this service does not have: one sentence for each."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.errors import NotFound

NOT_KEPT = (
    "Answers are not kept here ('store' is accepted and changes nothing), so chat completions "
    "cannot be listed, read, changed or deleted."
)
SENTENCES = {
    "/responses": (
        "The Responses API is not available here; use POST /v1/chat/completions, in the AI SDK "
        "openai.chat(…)."
    ),
    "/embeddings": "Embeddings are not available here; the models only answer with text.",
    "/audio": "Speech and transcription are not available here; the models only answer with text.",
    "/images": "Images are not available here; the models only answer with text.",
    "/videos": "Videos are not available here; the models only answer with text.",
    "/realtime": "The Realtime API is not available here; use POST /v1/chat/completions.",
    "/moderations": "Moderation is not available here.",
    "/assistants": "Assistants are not available here; use POST /v1/chat/completions.",
    "/threads": "Assistants are not available here; use POST /v1/chat/completions.",
    "/conversations": "Conversations are not kept here; send all turns to /v1/chat/completions.",
    "/batches": "Batches are not available here; send the requests to /v1/chat/completions.",
    "/vector_stores": "Vector stores are not available here.",
    "/uploads": "Uploads in parts are not available here; use POST /v1/files.",
    "/evals": "Evaluations are not available here.",
    "/edits": "Edits are not available here; use POST /v1/chat/completions.",
    "/engines": "Engines are not available here; see GET /v1/models.",
    "/fine-tunes": "The old fine-tuning API is not available here; use /v1/fine_tuning/jobs.",
}

METHODS = ["GET", "POST", "DELETE"]


async def _say(request: Request) -> Response:
    pattern: str = request.scope["route"].path
    first = "/" + pattern.split("/")[2]
    raise NotFound(SENTENCES.get(first, NOT_KEPT), code="unsupported_endpoint")


def routes() -> list[Route]:
    """Return what answers at these URLs; it belongs behind the routes that do more."""
    paths = [path for name in SENTENCES for path in (name, name + "/{rest:path}")]
    return [
        *(Route("/v1" + path, _say, methods=METHODS) for path in paths),
        Route("/v1/chat/completions", _say, methods=["GET"]),
        Route("/v1/chat/completions/{rest:path}", _say, methods=METHODS),
    ]
