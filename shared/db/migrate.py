"""``python -m shared.db.migrate``: roles and database from nothing, then Alembic to the newest.

Run before the services start, and again after every upgrade. The superuser makes the roles and the
database, nothing else; the tables belong to ``tailor_owner``.
"""

from importlib import resources

from alembic import command
from alembic.config import Config
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url

from shared.settings import SystemDatabaseSettings
from shared.telemetry import configure_logging

ROLES = ("tailor_owner", "tailor_api", "tailor_system", "tailor_inference")


class MigrateSettings(SystemDatabaseSettings):
    """The four roles' URLs, and the superuser's to make them."""

    bootstrap_database_url: SecretStr
    """Superuser, on the maintenance database ``postgres``."""
    owner_database_url: SecretStr
    database_url: SecretStr
    inference_database_url: SecretStr


def main() -> None:
    """Bootstrap, then upgrade."""
    settings = MigrateSettings()
    configure_logging("migrate", settings.log_level)
    urls = [
        make_url(url.get_secret_value())
        for url in (
            settings.owner_database_url,
            settings.database_url,
            settings.system_database_url,
            settings.inference_database_url,
        )
    ]
    bootstrap(make_url(settings.bootstrap_database_url.get_secret_value()), urls)
    engine = create_engine(urls[0])
    upgrade(engine)
    engine.dispose()


def bootstrap(superuser: URL, roles: list[URL]) -> None:
    """Create the roles named by the URLs' users (or renew their passwords) and the database."""
    engine = create_engine(superuser, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for url in roles:
            _ensure_role(connection, url)
        owner, database = roles[0].username, roles[0].database
        if not connection.scalar(
            text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": database}
        ):
            _execute(
                connection,
                "CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0",
                sql.Identifier(str(database)),
                sql.Identifier(str(owner)),
            )
    engine.dispose()


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; two upgrades at once wait for each other."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('tailor.migrate'))"))
        command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("shared.db") / "migrations"))
    config.attributes["connection"] = connection
    return config


def _ensure_role(connection: Connection, url: URL) -> None:
    if url.username not in ROLES or not url.password:
        raise SystemExit(f"database URL of {url.username!r}: want one of {ROLES} with a password")
    known = connection.scalar(
        text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": url.username}
    )
    _execute(
        connection,
        ("ALTER" if known else "CREATE")
        + " ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD {}",
        sql.Identifier(url.username),
        sql.Literal(str(url.password)),
    )


def _execute(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    """Run a statement that takes no parameters, with its names and literals quoted by psycopg."""
    raw = connection.connection.driver_connection
    connection.exec_driver_sql(sql.SQL(statement).format(*parts).as_string(raw).replace("%", "%%"))


if __name__ == "__main__":
    main()
