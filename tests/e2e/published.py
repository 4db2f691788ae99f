"""Adapters in a running stack's store, as its tenants' models; and who answers for them."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Engine

import shared.db.tables  # noqa: F401  the rows that adapters refer to
from shared.adapters.models import Adapter
from shared.catalog import load_catalog
from shared.db import transaction
from shared.replicas.registry import served
from shared.replicas.routing import Router
from tests.running_stack import Customer
from tests.services.inference.server import BASE_MODEL


def publish(engine: Engine, owner: Customer, adapters: Mapping[str, str]) -> dict[str, str]:
    """Give adapters, ids by any name, to a tenant; return the public models by the same names."""
    models = {name: f"ft:{BASE_MODEL}:{owner.name}::{adapters[name][-8:]}" for name in adapters}
    with transaction(engine) as session:
        session.add_all(
            Adapter(
                id=adapters[name],
                tenant_id=owner.id,
                kind="final",
                model=model,
                step=1,
                base_model=BASE_MODEL,
                base_sha256=load_catalog().get(BASE_MODEL).base_sha256,
                metrics={},
            )
            for name, model in models.items()
        )
    return models


def homes(engine: Engine, adapters: Iterable[str]) -> dict[str, set[str]]:
    """Return which adapters are whose, by the addresses of the processes, while all is quiet."""
    with transaction(engine) as session:
        known = served(session, load_catalog())[BASE_MODEL].all
    found: dict[str, set[str]] = {replica.url: set() for replica in known}
    for adapter in adapters:
        found[Router().order(adapter, known, 0)[0].url].add(adapter)
    return found
