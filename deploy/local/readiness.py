"""How each program shows that it is ready, asked from outside."""

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import httpx
import psycopg
import redis
from sqlalchemy.engine import make_url

from deploy.local.programs import (
    API,
    COMPARER,
    INFERENCE,
    POSTGRES,
    SCHEDULER,
    VALKEY,
    WORKER,
    Wiring,
    kind,
)
from shared import task_queue

ASK_SECONDS = 2
SCHEDULER_SECONDS = 2
"""It has no door to knock at: having run this long, it has swept at least once."""
COMPARERS = f"{task_queue.WORKER}{task_queue.COMPARE}:"
"""How the names of a comparer's connections begin."""


def ready(name: str, wiring: Wiring, info: Mapping[str, Any]) -> bool:
    """Say whether program ``name`` does its work; ``info`` is supervisord's about it."""
    if info["statename"] != "RUNNING":
        return False
    if kind(name) == INFERENCE:
        return _answers(wiring.replica(name).url + "/readyz")
    return _CHECKS[name](wiring, info)


def _postgres(wiring: Wiring, _info: Mapping[str, Any]) -> bool:
    url = make_url(wiring.bootstrap_database_url).set(drivername="postgresql")
    try:
        psycopg.connect(
            url.render_as_string(hide_password=False), connect_timeout=ASK_SECONDS
        ).close()
    except psycopg.OperationalError:
        return False
    return True


def _valkey(wiring: Wiring, _info: Mapping[str, Any]) -> bool:
    return _ask_valkey(wiring, lambda client: bool(client.ping()))


def _worker(wiring: Wiring, _info: Mapping[str, Any]) -> bool:
    return _listens(wiring, lambda name: not name.startswith(COMPARERS))


def _comparer(wiring: Wiring, _info: Mapping[str, Any]) -> bool:
    return _listens(wiring, lambda name: name.startswith(COMPARERS))


def _listens(wiring: Wiring, is_meant: Callable[[str], bool]) -> bool:
    """A Celery worker that listens hangs in a blocking pop, and Valkey lists it."""
    return _ask_valkey(
        wiring,
        lambda client: any(
            c["cmd"] == "brpop" and is_meant(c["name"]) for c in client.client_list()
        ),
    )


def _scheduler(_wiring: Wiring, info: Mapping[str, Any]) -> bool:
    return time.time() - float(info["start"]) > SCHEDULER_SECONDS


def _api(wiring: Wiring, _info: Mapping[str, Any]) -> bool:
    return _answers(wiring.base_url.removesuffix("/v1") + "/readyz")


def _answers(url: str) -> bool:
    try:
        return _client().get(url).status_code == 200
    except httpx.HTTPError:
        return False


@cache
def _client() -> httpx.Client:
    """One for all questions: to make one takes 50 ms of processor, and it is asked while starting.

    No connection is kept; the one who is asked may be another process the next time.
    """
    no_connections = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(timeout=ASK_SECONDS, limits=no_connections, trust_env=False)


def _ask_valkey(wiring: Wiring, question: Callable[[Any], bool]) -> bool:
    path = unquote(wiring.broker_url.removeprefix("redis+socket://"))
    try:
        with redis.Redis(
            unix_socket_path=path, socket_timeout=ASK_SECONDS, decode_responses=True
        ) as client:
            return question(client)
    except (redis.RedisError, OSError):
        return False


_CHECKS: dict[str, Callable[[Wiring, Mapping[str, Any]], bool]] = {
    POSTGRES: _postgres,
    VALKEY: _valkey,
    API: _api,
    SCHEDULER: _scheduler,
    WORKER: _worker,
    COMPARER: _comparer,
}
