"""Likely secrets and personal data. What is found is named by kind and line and never repeated.

Kept libraries decide (detect-secrets, phonenumbers, python-stdnum, email-validator); the patterns
here only find the places they are asked about, and leave out what companies write all day: order
and part numbers, prices, bar codes, free-phone numbers, role addresses.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneNumberType
from stdnum import iban, luhn
from stdnum.jp import in_ as my_number

SECRETS = (
    *("artifactory:ArtifactoryDetector", "aws:AWSKeyDetector"),
    *("azure_storage_key:AzureStorageKeyDetector", "basic_auth:BasicAuthDetector"),
    *("discord:DiscordBotTokenDetector", "github_token:GitHubTokenDetector"),
    *("gitlab_token:GitLabTokenDetector", "jwt:JwtTokenDetector", "mailchimp:MailchimpDetector"),
    *("npm:NpmDetector", "openai:OpenAIDetector", "private_key:PrivateKeyDetector"),
    *("pypi_token:PypiTokenDetector", "sendgrid:SendGridDetector", "slack:SlackDetector"),
    *("square_oauth:SquareOAuthDetector", "stripe:StripeDetector"),
    *("telegram_token:TelegramBotTokenDetector", "twilio:TwilioKeyDetector"),
)
"""Detectors that know a format. Entropy is left out: part numbers and hashes have it too."""
ROLES = frozenset(
    [
        "info", "support", "contact", "sales", "help", "helpdesk", "service", "customer",
        "office", "admin", "webmaster", "postmaster", "noreply", "no-reply", "donotreply",
        "inquiry", "inquiries", "press", "jobs", "recruit", "privacy", "security", "abuse",
        "billing", "order", "orders", "shop", "webshop", "hello", "team", "mail", "toiawase",
    ]
)  # fmt: skip
"""Addresses of a desk and not of a person."""
MIN_PASSWORD = 8
SERVICE_NUMBERS = frozenset(
    {
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.UAN,
    }
)

_MAYBE_SECRET = re.compile(r"[A-Za-z0-9_\-./+=]{16}|-----BEGIN|://[^\s/]+:[^\s/]+@")
_NEW_KEYS = re.compile(
    r"(?<![\w-])sk-(?:proj-|ant-|svcacct-)[\w-]{20,}|(?<!\w)AIza[\w-]{35}(?!\w)", re.ASCII
)
_NAMED_WORDS = (
    *("passw", "passphrase", "pwd", "api", "secret", "token"),
    *("パスワード", "暗証番号", "シークレット", "アクセスキー"),
)
"""One of these stands in whatever ``_NAMED`` finds: to look for them is far cheaper."""
_NAMED = re.compile(
    r"(?:password|passwd|passphrase|pwd|api[_ -]?key|secret(?:[_ -]key)?|access[_ -]?token|token"
    r"|パスワード|暗証番号|シークレット|アクセスキー|apiキー)"
    r"(?:\s+is|は)?\s*[:=「『\"' ]{1,4}(?P<value>[!-~]{6,})",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"://[^\s/]+@")
_EMAIL = re.compile(r"[\w.%+-]{1,64}@(?:[\w-]+\.)+[A-Za-z]{2,}", re.ASCII)
_PHONE = re.compile(r"(?<![\w.,/#-])[+(]?\(?\d[\d() .‐-]{7,18}\d(?![\w-])", re.ASCII)
_PHONE_WORD = re.compile(
    r"(?:tel|phone|call|mobile|cell|fax|電話|携帯|ケータイ|連絡先|ファックス)[^\d+]{0,20}$",
    re.IGNORECASE,
)
_CARD = re.compile(
    r"(?<![\w.-])(?:3\d{3}[ -]?\d{6}[ -]?\d{4,5}|\d{4}(?:[ -]?\d{4}){3})(?![\w-])", re.ASCII
)
_CARD_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[47]|3[0689]|35|6011|6[245]")
_MY_NUMBER = re.compile(r"(?<![\w-])\d{4}[ -]?\d{4}[ -]?\d{4}(?![\w-])", re.ASCII)
_MY_NUMBER_WORD = re.compile(
    r"(?:マイナンバー|個人番号|my ?number|individual number)[^\d]{0,20}$", re.IGNORECASE
)
_IBAN = re.compile(
    r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)", re.ASCII
)
_NEARBY = 40


def kinds_in(text: str) -> set[str]:
    """Return the kinds of sensitive data in a text."""
    text = unicodedata.normalize("NFKC", text)
    return {kind for kind, finds in CHECKS.items() if finds(text)}


def _has_secret(text: str) -> bool:
    lower = text.lower()
    if any(word in lower for word in _NAMED_WORDS) and any(
        _looks_secret(match["value"]) for match in _NAMED.finditer(text)
    ):
        return True
    if not _MAYBE_SECRET.search(text):
        return False
    if _NEW_KEYS.search(text):
        return True
    lines = [line for line in text.splitlines() if _MAYBE_SECRET.search(line)]
    return any(next(find(line), None) for find in _detectors() for line in lines)


def _looks_secret(value: str) -> bool:
    """Tell ``hunter2!x`` from an ordinary word or number after "password:"."""
    value = value.rstrip(".,;:)\"'")
    if len(value) < MIN_PASSWORD or value.startswith(("<", "{", "$", "%", "http")):
        return False
    has_digit = any(map(str.isdigit, value))
    return has_digit and not value.isdigit() and any(map(str.isalpha, value))


@cache
def _detectors() -> tuple[Callable[[str], Iterator[str]], ...]:
    from importlib import import_module  # noqa: PLC0415  0.2 s, with requests, for those who need it

    found = []
    for name in SECRETS:
        module, _, plugin = name.partition(":")
        detector = getattr(import_module(f"detect_secrets.plugins.{module}"), plugin)()
        found.append(detector.analyze_string)
    return tuple(found)


def _has_email(text: str) -> bool:
    if "@" not in text:
        return False
    text = _URL_LOGIN.sub(" ", text)
    return any(_is_personal_address(match.group()) for match in _EMAIL.finditer(text))


def _is_personal_address(address: str) -> bool:
    try:
        local = validate_email(address, check_deliverability=False).local_part
    except EmailNotValidError:
        return False
    return local.lower() not in ROLES


def _has_phone(text: str) -> bool:
    return any(_is_phone(text, match) for match in _PHONE.finditer(text))


def _is_phone(text: str, match: re.Match[str]) -> bool:
    written = match.group()
    try:
        number = phonenumbers.parse(written, "JP")
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(number):
        return False
    kind = phonenumbers.number_type(number)
    if kind in SERVICE_NUMBERS:
        return False
    if _PHONE_WORD.search(text[max(0, match.start() - _NEARBY) : match.start()]):
        return True
    mobile = kind == PhoneNumberType.MOBILE and written.startswith("0")
    return written.startswith("+") or mobile or _is_grouped(written, number)


def _is_grouped(written: str, number: phonenumbers.PhoneNumber) -> bool:
    """Say whether the digits stand as this country writes them; an order number's do not."""
    usual = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return written.startswith(("0", "(")) and re.findall(r"\d+", written) == re.findall(
        r"\d+", usual
    )


def _has_card(text: str) -> bool:
    return any(_is_card(match.group()) for match in _CARD.finditer(text))


def _is_card(written: str) -> bool:
    digits = re.sub(r"\D", "", written)
    return bool(_CARD_ISSUER.match(digits)) and len(set(digits)) > 1 and luhn.is_valid(digits)


def _has_my_number(text: str) -> bool:
    return any(
        my_number.is_valid(match.group())
        and _MY_NUMBER_WORD.search(text[max(0, match.start() - _NEARBY) : match.start()])
        for match in _MY_NUMBER.finditer(text)
    )


def _has_iban(text: str) -> bool:
    return any(iban.is_valid(match.group()) for match in _IBAN.finditer(text))


CHECKS: dict[str, Callable[[str], bool]] = {
    "secret": _has_secret,
    "card_number": _has_card,
    "my_number": _has_my_number,
    "bank_account": _has_iban,
    "email_address": _has_email,
    "phone_number": _has_phone,
}
