"""The name of an uploaded file, as RFC 5987, RFC 2047 or plain bytes may spell it."""

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

_EXTENDED = re.compile(rb"""filename\*\s*=\s*"?([\w.:-]+)'[^']*'([^;"\s]*)""", re.IGNORECASE)
_GUESSES = ("utf-8", "cp932")


def filename_of(disposition: bytes, plain: bytes) -> str:
    """Return the name that a Content-Disposition gives; ``plain`` is its ``filename``, if any."""
    extended = _EXTENDED.search(disposition)
    if extended:
        try:
            return unquote_to_bytes(extended[2]).decode(extended[1].decode("ascii"))
        except (LookupError, ValueError):
            pass  # the plain name is all there is
    text = _decoded(plain)
    if "=?" in text:
        try:
            return str(make_header(decode_header(text)))
        except (HeaderParseError, LookupError, ValueError):
            return text
    return text


def _decoded(name: bytes) -> str:
    for encoding in _GUESSES:
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name.decode(errors="replace")
