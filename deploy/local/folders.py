"""Folders with few permissions: private ones, short ones for sockets, and who can reach them.

The kernel cuts a Unix socket's path at 107 bytes, so a deep data folder gets its sockets in a short
private folder below the system's temporary one, recorded by a symbolic link.
"""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SOCKET_PATH_BYTES = 107
LONGEST_SOCKET_NAME = "supervisor.sock.4194304"
"""supervisord binds under a name with its pid, then renames."""


def unprivileged_account() -> pwd.struct_passwd | None:
    """As root, the account PostgreSQL runs under (it refuses root); otherwise None: our own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SystemExit("PostgreSQL refuses to run as root and there is no account 'nobody' to use.")


def private_folder(path: Path, owner: pwd.struct_passwd | None = None) -> Path:
    """Make ``path`` a folder that only ``owner`` (by default we) can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    path.chmod(0o700)
    return path


def socket_folder(path: Path, owner: pwd.struct_passwd | None = None) -> Path:
    """Return a private folder for sockets: ``path``, or a short one that ``path`` links to."""
    if path.is_symlink():
        target = path.readlink()
        if _is_private(target, owner):
            return target
        path.unlink()
    if _short_enough(path.resolve()):
        return private_folder(path.resolve(), owner)
    target = Path(tempfile.mkdtemp(prefix="tailor-", dir=_short_temporary_folder(owner)))
    private_folder(target, owner)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return target


def remove_socket_folder(path: Path) -> None:
    """Remove what ``socket_folder`` made."""
    if path.is_symlink():
        shutil.rmtree(path.readlink(), ignore_errors=True)
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def can_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    """Say whether ``account`` can reach what lies in ``folder``."""
    return runs_as(["test", "-x", str(folder)], account)


def runs_as(command: list[str], account: pwd.struct_passwd) -> bool:
    """Say whether ``command`` succeeds under ``account``."""
    try:
        return (
            subprocess.run(
                command,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    except OSError:
        return False


def _is_private(folder: Path, owner: pwd.struct_passwd | None) -> bool:
    """A temporary folder may have been removed, and its name taken by somebody else."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    uid = owner.pw_uid if owner else os.geteuid()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def _short_enough(folder: Path) -> bool:
    return len(os.fsencode(folder / LONGEST_SOCKET_NAME)) <= SOCKET_PATH_BYTES


def _short_temporary_folder(owner: pwd.struct_passwd | None) -> str:
    usual = Path(tempfile.gettempdir())
    fits = _short_enough(usual / "tailor-12345678") and (owner is None or can_enter(usual, owner))
    return str(usual) if fits else "/tmp"  # noqa: S108  a private folder is made inside
