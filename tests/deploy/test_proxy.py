"""The proxy's file says what Tailor needs of a proxy, and its page names the file's four values.

That nginx does it is shown where nginx is installed: ``test_behind_nginx.py``.
"""

import json
import re
from pathlib import Path

from services.api.front_door import MULTIPART_OVERHEAD
from services.api.server import MAX_HEAD_BYTES
from services.api.settings import ApiSettings

ROOT = Path(__file__).parents[2]
SITE = (ROOT / "deploy/proxy/nginx.conf").read_text()
PAGE = (ROOT / "docs/operations.md").read_text().split("## A TLS proxy in front")[1]
API = (ROOT / "docs/api.md").read_text()
FILLED_IN = re.findall(r"^#   (\S+)  +", SITE, re.MULTILINE)


def value(directive: str) -> str:
    """Return the one value of a directive."""
    (found,) = re.findall(rf"^ +{directive} +(.+?);", SITE, re.MULTILINE)
    return str(found)


def default(name: str) -> float:
    """Return the default of a setting of the API."""
    return float(ApiSettings.model_fields[name].default)


def test_a_body_is_refused_by_tailor_before_the_proxy_would() -> None:
    megabytes = int(value("client_max_body_size").removesuffix("m"))
    assert megabytes * 2**20 > default("upload_max_bytes") + MULTIPART_OVERHEAD


def test_the_proxy_waits_longer_for_an_answer_than_tailor_does() -> None:
    seconds = int(value("proxy_read_timeout").removesuffix("s"))
    assert seconds > default("inference_timeout_seconds")
    assert seconds > default("file_check_wait_seconds") + default("file_check_seconds")


def test_a_head_may_be_as_long_as_in_tailor() -> None:
    number, kilobytes = value("large_client_header_buffers").removesuffix("k").split()
    assert int(number) * int(kilobytes) * 1024 == MAX_HEAD_BYTES


def test_only_the_api_and_its_health_are_passed_on() -> None:
    passed_on = re.findall(r"location (.+?) +\{ proxy_pass", SITE)
    assert passed_on == ["/v1/", "= /healthz", "= /readyz"]


def test_each_error_of_the_proxy_has_openais_shape_and_a_documented_status() -> None:
    errors = dict(re.findall(r"^    (\w+) '(\{.+\})';", SITE, re.MULTILINE))
    assert len(errors) > 5
    for status, body in errors.items():
        error = json.loads(body)["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert status == "default" or f"| {status} |" in API


def test_the_page_names_the_file_and_what_is_filled_in() -> None:
    assert len(FILLED_IN) == 4
    assert [name for name in FILLED_IN if SITE.count(name) < 2 or name not in PAGE] == []
    assert "../deploy/proxy/nginx.conf" in PAGE
