"""The Japanese FAQ: read as its pages are written, asked in words that were not trained."""

import subprocess

import pytest

from examples.faq_ja import read
from examples.faq_ja.build import build
from examples.faq_ja.read import Entry, FaqMissing, entries, sections

PAGE = """<html><head><title>第1章</title></head><body>
<div class="navheader"><table><tr><th>第1章 営業</th></tr></table></div>
<div class="chapter"><div class="titlepage"><h1 class="title">第1章 営業</h1></div>
<div class="toc"><dl><dt><a href="#s1.1">1.1. 何時に開きますか?</a></dt></dl></div>
<div class="section"><div class="titlepage"><h2 class="title"><a id="s1.1"></a>1.1. 何時に
開きますか?</h2></div><p>平日は <em>九時</em> に
開きます。土曜日は十時に開きます。</p><ul><li><p>日曜日は休みです。</p></li></ul>
<div class="section"><div class="titlepage"><h3 class="title">1.1.1. 祝日はどうですか？</h3></div>
<p>LONG</p></div>
<div class="section"><div class="titlepage"><h3 class="title">1.1.2. 概要</h3></div>
<p>これは質問ではない見出しの下にある文です。とても長い文。</p></div>
<div class="section"><div class="titlepage"><h3 class="title">1.1.3. 短いですか?</h3></div>
<p>はい。</p></div></div></div>
<div class="navfooter"><p>次へ</p></div></body></html>""".replace("LONG", "祝日は休みです。" * 60)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "opening.ja.html").write_text(PAGE, encoding="utf-8")
    return tmp_path


def test_a_section_is_its_title_and_its_own_text():
    (first, *others) = sections(PAGE)
    assert first == Entry(
        "何時に 開きますか?", "平日は 九時 に 開きます。土曜日は十時に開きます。日曜日は休みです。"
    )
    assert [entry.question for entry in others] == ["祝日はどうですか?", "概要", "短いですか?"]


def test_a_long_answer_ends_with_a_sentence():
    answer = sections(PAGE)[1].answer
    assert len(answer) == read.LONGEST
    assert answer.endswith("休みです。")


def test_only_questions_with_an_answer_are_taken(folder):
    assert [entry.question for entry in entries(folder)] == [
        "何時に 開きますか?",
        "祝日はどうですか?",
    ]


def test_every_question_is_trained_and_asked_in_words_that_were_not(folder):
    train, held_out = build(folder)
    assert build(folder) == (train, held_out)
    trained = {row["messages"][0]["content"] for row in train}
    asked = {row["messages"][0]["content"] for row in held_out}
    assert len(trained) == 8
    assert len(asked) == 2
    assert not trained & asked
    assert {row["group"] for row in train} == {row["group"] for row in held_out}


def test_where_the_package_is_missing_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise subprocess.CalledProcessError(100, "apt-get")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(FaqMissing, match="apt install debian-faq-ja"):
        entries(tmp_path / "missing")
    with pytest.raises(FaqMissing, match="holds no questions"):
        entries(tmp_path)
