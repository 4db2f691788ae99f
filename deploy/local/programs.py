"""The stack as plain data: which programs run, with which environment; mirrored by compose.

Each service gets the settings it needs and no others; ``TAILOR_*`` variables of the caller that are
not ours to set (timings, thread counts, log level) reach every service.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.local import postgres as local_postgres
from deploy.local import valkey
from deploy.local.data_folder import DataFolder, Secrets
from deploy.local.launch import LaunchSpec
from deploy.local.postgres import Postgres
from deploy.local.supervision import Program

POSTGRES, VALKEY, API, SCHEDULER, WORKER, COMPARER, INFERENCE = NAMES = (
    "postgres",
    "valkey",
    "api",
    "scheduler",
    "worker",
    "comparer",
    "inference",
)
"""Of every stack; one that serves more than one base model, or one by several processes, has
``inference-2`` and so on, too."""
SERVICES = (API, SCHEDULER, WORKER, COMPARER, INFERENCE)
"""Ours: started and stopped together, between the two servers' start and stop."""
MODULES = {name: f"services.{name}" for name in SERVICES} | {COMPARER: "services.worker.comparing"}
"""What Python runs for each."""

STOP = {
    POSTGRES: ("INT", 8),  # fast shutdown
    VALKEY: ("TERM", 3),
    API: ("TERM", 10),
    SCHEDULER: ("TERM", 10),
    WORKER: ("TERM", 60),  # drain: a checkpoint, then back into the queue
    COMPARER: ("TERM", 20),
    INFERENCE: ("TERM", 20),
}
"""Signal, and seconds until SIGKILL; in all less than the 75 s that ``tailor down`` promises."""

CLIENT_SETTINGS = {"TAILOR_BASE_URL", "TAILOR_API_KEY"}


def kind(name: str) -> str:
    """Return what a program is: every inference process is ``inference``."""
    return INFERENCE if name.startswith(INFERENCE) else name


@dataclass(frozen=True)
class Replica:
    """One inference process."""

    name: str
    base_model: str
    port: int

    @property
    def url(self) -> str:
        """What gateway, worker and scheduler use."""
        return f"http://127.0.0.1:{self.port}"


def replicas(base_models: Sequence[str], ports: Iterable[int]) -> tuple[Replica, ...]:
    """Name one inference process for each of ``base_models``, which may be given repeatedly."""
    names = [INFERENCE, *(f"{INFERENCE}-{number}" for number in range(2, len(base_models) + 1))]
    return tuple(map(Replica, names, base_models, ports))


@dataclass(frozen=True)
class Wiring:
    """Addresses and credentials that tie the programs together."""

    api_host: str
    api_port: int
    replicas: tuple[Replica, ...]
    scheduler_metrics_port: int
    worker_metrics_port: int
    models_dir: Path
    bootstrap_database_url: str = field(repr=False)
    owner_database_url: str = field(repr=False)
    database_url: str = field(repr=False)
    system_database_url: str = field(repr=False)
    inference_database_url: str = field(repr=False)
    broker_url: str = field(repr=False)

    @property
    def base_url(self) -> str:
        """What clients on this machine use."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.api_host, self.api_host)  # noqa: S104  compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}/v1"

    def replica(self, name: str) -> Replica:
        """Return the inference process of a name."""
        return next(replica for replica in self.replicas if replica.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """All programs of this stack, in their order of start."""
        return (POSTGRES, VALKEY, *self.services)

    @property
    def services(self) -> tuple[str, ...]:
        """Ours among them."""
        return (*SERVICES, *(replica.name for replica in self.replicas[1:]))

    @property
    def metrics_ports(self) -> dict[str, int]:
        """Where the services but the API serve their metrics to who has the metrics secret."""
        return {
            SCHEDULER: self.scheduler_metrics_port,
            WORKER: self.worker_metrics_port,
            **{replica.name: replica.port for replica in self.replicas},
        }


def wire(postgres: Postgres, sockets: Path, secrets: Secrets, **addresses: object) -> Wiring:
    """Build the wiring from the prepared servers."""
    return Wiring(
        bootstrap_database_url=postgres.url(
            local_postgres.SUPERUSER, secrets.postgres_password, "postgres"
        ),
        owner_database_url=postgres.url("tailor_owner", secrets.owner_password),
        database_url=postgres.url("tailor_api", secrets.api_password),
        system_database_url=postgres.url("tailor_system", secrets.system_password),
        inference_database_url=postgres.url("tailor_inference", secrets.inference_password),
        broker_url=valkey.url(sockets),
        **addresses,  # type: ignore[arg-type]
    )


def service_settings(
    folder: DataFolder, secrets: Secrets, wiring: Wiring
) -> dict[str, dict[str, str]]:
    """Return each service's ``TAILOR_*`` variables; ``migrate`` runs once, before the others."""
    system = {"TAILOR_SYSTEM_DATABASE_URL": wiring.system_database_url}
    broker = {"TAILOR_BROKER_URL": wiring.broker_url}
    store = {"TAILOR_STORE_DIR": str(folder.store)}
    models = {"TAILOR_MODELS_DIR": str(wiring.models_dir)}
    secret = {"TAILOR_INFERENCE_SECRET": secrets.inference_secret}
    registration = {"TAILOR_INFERENCE_DATABASE_URL": wiring.inference_database_url}
    metrics_secret = {"TAILOR_METRICS_SECRET": secrets.metrics_secret}
    metrics = {"TAILOR_METRICS_HOST": "127.0.0.1", **metrics_secret}
    salt = {"TAILOR_CACHE_SALT_KEY": secrets.cache_salt_key}
    jobs = system | broker | store | models | secret | metrics
    return {
        "migrate": system
        | registration
        | {
            "TAILOR_BOOTSTRAP_DATABASE_URL": wiring.bootstrap_database_url,
            "TAILOR_OWNER_DATABASE_URL": wiring.owner_database_url,
            "TAILOR_DATABASE_URL": wiring.database_url,
        },
        "admin": system | {"TAILOR_ADMIN_KEY": secrets.admin_key},
        API: system
        | broker
        | store
        | models
        | secret
        | salt
        | {
            "TAILOR_DATABASE_URL": wiring.database_url,
            "TAILOR_API_HOST": wiring.api_host,
            "TAILOR_API_PORT": str(wiring.api_port),
        },
        SCHEDULER: jobs | {"TAILOR_METRICS_PORT": str(wiring.scheduler_metrics_port)},
        WORKER: jobs | {"TAILOR_METRICS_PORT": str(wiring.worker_metrics_port)},
        COMPARER: system | broker | store | models | secret | salt,
        **{
            replica.name: store
            | models
            | secret
            | registration
            | metrics_secret
            | {
                "TAILOR_INFERENCE_BASE_MODEL": replica.base_model,
                "TAILOR_INFERENCE_HOST": "127.0.0.1",
                "TAILOR_INFERENCE_PORT": str(replica.port),
                "TAILOR_INFERENCE_STATE_DIR": str(folder.state(replica.name)),
            }
            for replica in wiring.replicas
        },
    }


def programs(
    folder: DataFolder,
    postgres: Postgres,
    sockets: Path,
    names: Iterable[str],
    settings: dict[str, dict[str, str]],
) -> list[Program]:
    """Return the programs called ``names``, the two servers first."""
    account = postgres.account
    specs = {
        POSTGRES: LaunchSpec(
            argv=postgres.command(),
            env=local_postgres.ENVIRONMENT,
            cwd=str(postgres.data),
            record=str(folder.record(POSTGRES)),
            uid=account.pw_uid if account else None,
            gid=account.pw_gid if account else None,
        ),
        VALKEY: LaunchSpec(
            argv=valkey.command(sockets),
            env={"LC_ALL": "C"},
            cwd=str(sockets),
            record=str(folder.record(VALKEY)),
        ),
    }
    for name in names:
        if name in specs:
            continue
        specs[name] = LaunchSpec(
            argv=[sys.executable, "-m", MODULES[kind(name)]],
            env=environment(settings, name),
            # A private folder: Python would import modules from wherever the caller stands.
            cwd=str(folder.run),
            record=str(folder.record(name)),
        )
    return [Program(name, spec, *STOP[kind(name)]) for name, spec in specs.items()]


def environment(settings: dict[str, dict[str, str]], service: str) -> dict[str, str]:
    """Return the whole environment of ``service``: the caller's without what is ours to set."""
    ours = CLIENT_SETTINGS.union(*settings.values())
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings[service]}


def as_json(wiring: Wiring) -> dict[str, object]:
    """Return what later commands need to know of a running stack."""
    return asdict(wiring) | {"models_dir": str(wiring.models_dir)}


def from_json(facts: dict[str, Any]) -> Wiring:
    """Return the wiring that ``as_json`` wrote down."""
    known = tuple(Replica(**replica) for replica in facts["replicas"])
    return Wiring(**facts | {"models_dir": Path(facts["models_dir"]), "replicas": known})
