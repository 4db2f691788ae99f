"""``python -m shared.tenants.admin``: make ``TAILOR_ADMIN_KEY`` open the admin routes.

Run after the migrations. Naming another key than before revokes the earlier one.
"""

from pydantic import SecretStr
from sqlalchemy import Engine, func, select, update

from shared.db import make_engine, transaction
from shared.settings import SystemDatabaseSettings
from shared.tenants.keys import hash_of, key_row
from shared.tenants.models import ApiKey


class AdminKeySettings(SystemDatabaseSettings):
    """The key, ``tl-admin-…``, made by whoever runs the deployment."""

    admin_key: SecretStr


def main() -> None:
    """Install the key of the environment."""
    settings = AdminKeySettings()
    engine = make_engine(settings.system_database_url.get_secret_value())
    install_admin_key(engine, settings.admin_key.get_secret_value())
    engine.dispose()


def install_admin_key(engine: Engine, secret: str) -> None:
    """Make ``secret`` the only administrator's key (system role)."""
    with transaction(engine) as session:
        session.execute(
            update(ApiKey)
            .where(ApiKey.is_admin, ApiKey.revoked_at.is_(None), ApiKey.sha256 != hash_of(secret))
            .values(revoked_at=func.now())
        )
        key = session.scalar(
            select(ApiKey).where(ApiKey.is_admin, ApiKey.sha256 == hash_of(secret))
        )
        if key is None:
            session.add(key_row(secret, tenant_id=None))
        else:
            key.revoked_at = None


if __name__ == "__main__":
    main()
