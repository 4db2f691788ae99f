"""The shared part of the error tree, and its one form on the wire: OpenAI's.

TailorError
├── InvalidRequest            400  the caller can mend it; names the parameter
├── AuthenticationFailed      401  missing, malformed or revoked key
├── PermissionDenied          403  the key is valid but not for this (admin routes)
├── NotFound                  404  missing, or another tenant's: indistinguishable
├── RequestTimeout            408  the request did not arrive in time
├── Conflict                  409  the object's state does not allow this
├── PayloadTooLarge           413
├── UnsupportedMediaType      415  the body is packed in a way that is not read here
├── RateLimited               429
├── HeadersTooLarge           431
├── UpstreamUnavailable       503  the inference service or the database is away
├── InsufficientStorage       507  the disk is nearly full
└── LeaseLost                 (never on the wire) somebody else owns the job now

Services, storage and command line add classes of their own beside their code. Every class pickles
by its arguments: Celery's child process hands its parent what a task raised.
"""

from typing import Any


class TailorError(Exception):
    """Base of all errors that Tailor raises on purpose."""

    status: int = 500
    type: str = "server_error"
    default_code: str | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)
        self.message = message
        self.param = param
        self.code = code or self.default_code

    def __str__(self) -> str:
        return self.message


class InvalidRequest(TailorError):
    """The request is wrong in a way its sender can mend."""

    status = 400
    type = "invalid_request_error"


class AuthenticationFailed(TailorError):
    """The API key is missing, malformed, unknown or revoked."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class PermissionDenied(TailorError):
    """The key is valid but does not open this route."""

    status = 403
    type = "invalid_request_error"
    default_code = "permission_denied"


class NotFound(TailorError):
    """The object is missing or belongs to another tenant; nobody can tell which."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class RequestTimeout(TailorError):
    """The request did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class Conflict(TailorError):
    """The object's present state does not allow the request; retrying cannot help."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class PayloadTooLarge(TailorError):
    """The body is larger than the limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class UnsupportedMediaType(TailorError):
    """The body is encoded in a way that is not read here."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class HeadersTooLarge(TailorError):
    """Request line and headers are longer than the limit."""

    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class RateLimited(TailorError):
    """Too many requests; try again later."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "rate_limit_exceeded"


class UpstreamUnavailable(TailorError):
    """A part this request needs is away; the same request may succeed later."""

    status = 503
    type = "server_error"
    default_code = "service_unavailable"


class InsufficientStorage(TailorError):
    """The deployment's disk is nearly full; only its administrator can help."""

    status = 507
    type = "server_error"
    default_code = "insufficient_storage"


class LeaseLost(TailorError):
    """Somebody else owns the job now: stop, write nothing, keep nothing."""


def payload(error: TailorError) -> dict[str, Any]:
    """Return the error as OpenAI's JSON object, with all four keys."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
