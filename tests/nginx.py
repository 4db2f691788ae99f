"""Debian's nginx with the very file that operators install, on free ports and a fresh key."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from deploy.local.checks import claim_port
from tests.conftest import running, short_folder, wait_until

SITE = Path(__file__).parents[1] / "deploy/proxy/nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
OPENSSL = shutil.which("openssl")
needs_nginx = pytest.mark.skipif(
    not (NGINX and OPENSSL), reason="nginx or openssl is not installed (apt install nginx openssl)"
)
AROUND = """
{account}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 768; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    tcp_nopush on;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    access_log {folder}/access.log;
    gzip on;
    include {folder}/site.conf;
}}
"""
"""What Debian's nginx.conf sets around a site, with every path below the test's folder."""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    url: str
    """Its TLS port."""
    plain_url: str
    folder: Path
    tls: ssl.SSLContext
    """Trusts its certificate, and no other."""
    process: psutil.Process

    def client(self, key: str | None = None) -> httpx.Client:
        """Return an HTTP client with a key; whoever asks closes it."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=30, verify=self.tls, trust_env=False
        )

    def held_back(self) -> int:
        """Return how many bytes of bodies and answers it has put on the disk.

        It unlinks such a file as soon as it has opened it, so no folder shows it.
        """
        held = 0
        for worker in self.process.children():
            for opened in Path(f"/proc/{worker.pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    if opened.readlink().parent in {self.folder / "body", self.folder / "proxy"}:
                        held += opened.stat().st_size
        return held


@contextmanager
def running_nginx(upstream_url: str, **changed: str) -> Iterator[Nginx]:
    """Run nginx before an HTTP server; ``changed`` are directives with another value."""
    with short_folder() as folder:
        make_certificate(folder)
        tls_port, plain_port = claim_port("127.0.0.1", 0), claim_port("127.0.0.1", 0)
        site = installed(folder, urlsplit(upstream_url).netloc, tls_port, plain_port)
        for directive, value in changed.items():
            site, found = re.subn(
                rf"^( +{directive}) .+;", rf"\1 {value};", site, flags=re.MULTILINE
            )
            assert found, directive
        (folder / "site.conf").write_text(site)
        account = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder, account=account))
        command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        with running([*command, "-g", "daemon off;"]) as process:
            wait_until(lambda: listens(tls_port), "nginx listens", (ConnectionError,))
            tls = ssl.create_default_context(cafile=folder / "tailor.crt")
            urls = f"https://localhost:{tls_port}", f"http://localhost:{plain_port}"
            yield Nginx(*urls, folder, tls, psutil.Process(process.pid))


def installed(folder: Path, upstream: str, tls_port: int, plain_port: int) -> str:
    """Return the site with what an operator fills in, on ports that need no root."""
    site = SITE.read_text()
    for written, ours in {
        "tailor.example.com": "localhost",
        "/etc/nginx/tls": str(folder),
        "/var/log/nginx": str(folder),
        "127.0.0.1:8000": upstream,
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "listen 443 ": f"listen 127.0.0.1:{tls_port} ",
    }.items():
        assert written in site, written
        site = site.replace(written, ours)
    return re.sub(r"listen \[::\].*;", "", site)  # not every machine has IPv6


def make_certificate(folder: Path) -> None:
    """Make a certificate for localhost that signs itself."""
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(folder / "tailor.key"), "-out", str(folder / "tailor.crt")),
        ],
        check=True,
        capture_output=True,
    )


def listens(port: int) -> bool:
    """Say whether somebody takes connections there."""
    socket.create_connection(("127.0.0.1", port)).close()
    return True
