"""The page of a report: what it shows, that nothing in it runs or loads, and both languages."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from markupsafe import escape

from shared.evidence.arms import Arm
from shared.evidence.page import clipped, html
from shared.evidence.report import Report, VerdictKind
from shared.evidence.verdict import sentence
from shared.evidence.words import Language, words
from tests.shared.evidence.reports import HOSTILE, before_training, full, hostile

REPORTS = {
    "full": full(),
    "graded": full("either", binary=False),
    "before": before_training(),
    "hostile": hostile(),
}
VOID = {"meta", "br", "hr", "img", "input", "link"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute stands twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)


@pytest.fixture(params=REPORTS)
def report(request) -> Report:
    return REPORTS[request.param]


@pytest.fixture(params=get_args(Language))
def language(request) -> Any:
    return request.param


def leaves(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every number below a part."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from leaves(value, (*path, key))
    elif isinstance(part, list | tuple):
        for index, value in enumerate(part):
            yield from leaves(value, (*path, index))
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield path


def changed(report: Report, path: tuple[Any, ...]) -> Report:
    """Return the report with the number at ``path`` changed."""
    dump = report.model_dump(mode="json")
    place = dump
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] += 7 if isinstance(place[path[-1]], int) else 0.0123
    if path[-1] in {"prompt_tokens", "completion_tokens", "prompt_tokens_saved"}:
        place[path[-1]] += 3
    if path[-1] in {"training_seconds", "prompt_tokens_saved_per_thousand"}:
        place[path[-1]] += 61
    return Report.model_validate(dump)


def numbers(report: Report) -> set[tuple[Any, ...]]:
    """Return the paths of all numbers in a report."""
    return set(leaves(report.model_dump(mode="json")))


def seen(report: Report) -> set[tuple[Any, ...]]:
    """Return the numbers whose change changes the page."""
    page = html(report, "en")
    return {path for path in numbers(report) if html(changed(report, path), "en") != page}


def test_every_figure_of_the_report_appears() -> None:
    arms = (Arm.DOCUMENTS, Arm.RETRIEVED_5, Arm.TUNED)
    shares, scores = full(arms=arms, texts=[None]), full(arms=arms, binary=False, texts=[None])
    assert numbers(shares) | numbers(scores) == seen(shares) | seen(scores)


@pytest.mark.parametrize("kind", get_args(VerdictKind))
def test_the_verdict_stands_at_the_top_in_words(kind: VerdictKind, language: Language) -> None:
    report = full(kind)
    header = html(report, language).split("<main>")[0]
    assert escape(sentence(report.verdict, report.arms, language)) in header
    assert escape(words(language)[f"verdict_{kind}"]) in header


def test_nothing_in_the_page_runs_or_loads(report: Report, language: Language) -> None:
    text = html(report, language)
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "base"} & {t for t, _ in page.elements}
    for tag, attributes in page.elements:
        assert LOADING.isdisjoint(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in page.elements


def test_rows_texts_are_shown_as_text() -> None:
    page = Page(html(hostile(), "en"))
    shown = [text.strip() for text in page.texts]
    for text in HOSTILE[:4]:
        assert shown.count(text) >= 6, text  # question, expected, two answers; each way


def test_long_texts_are_clipped_and_say_how_much_is_left_out() -> None:
    assert clipped("abc", 3) == ("abc", 0)
    assert clipped("abcd", 3) == ("abc", 1)
    assert clipped("a\x00\x07b", 3) == ("ab", 0)
    shown, left = clipped("a\n" * 900, 400)
    assert (shown.count("\n"), left) == (7, 1799 - 15)
    assert len(html(hostile(), "ja")) < 400_000
    assert "… 4,500 more characters" in html(full(texts=["あ" * 4900]), "en")


def test_the_page_is_well_formed_and_names_its_parts(report: Report, language: Language) -> None:
    page = Page(html(report, language))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        if tag == "th":
            assert attributes.get("scope") in {"row", "col"}
        if tag == "html":
            assert attributes["lang"] == language
        if attributes.get("role") == "img":
            assert attributes["aria-labelledby"]
    assert {"h1", "h2", "title", "desc", "main", "header"} <= {tag for tag, _ in page.elements}


def test_colours_can_be_read_on_paper_and_on_dark_screens() -> None:
    light, dark = re.findall(r":root \{([^}]*--paper[^}]*)\}", html(full(), "en"))
    for theme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        paper, shade = luminance(colours.pop("paper")), luminance(colours.pop("shade"))
        del colours["line"]
        for name, colour in colours.items():
            assert contrast(luminance(colour), paper) >= 4.5, name
            assert contrast(luminance(colour), shade) >= 4.5, name


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    """Return the contrast ratio of WCAG 2."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


class Listener(BaseHTTPRequestHandler):
    """Counts whatever a page asks it for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Listener,), {"asked": asked})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_opens_the_page_without_an_error_and_asks_nobody(
    listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = listener
    texts = [
        f"<img src={address}/image>",
        f"</p><script src={address}/script></script>",
        "<script>console.error('ran')</script>",
        f"<style>@import '{address}/style'; body {{ background: url({address}/picture) }}</style>",
    ]
    page = tmp_path / "report.html"
    page.write_text(html(full(texts=texts), "ja"), "utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert full().comparison in done.stdout
    assert "CONSOLE" not in done.stderr
    assert asked == []
