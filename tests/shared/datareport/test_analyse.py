"""The data report on a realistic clean file, and on one with every fault planted 20 times."""

import json
import random
from pathlib import Path

import pytest

from deploy.local.setup import MODELS
from shared.catalog import load_catalog
from shared.datareport import language, near
from shared.datareport.analyse import Base, analyse
from shared.datareport.language import language_of
from shared.datareport.report import KINDS, MAX_LINES, Found
from shared.datareport.sensitive import kinds_in
from tests.shared.datareport.rows import EACH, clean, nearly, pair, planted, unique, write

ENTRY = next(iter(load_catalog()))
BASE = Base(ENTRY.name, ENTRY.folder(MODELS), ENTRY.context_length)

WORD_ENDS = ["ttle", "rn", "sh", "llow", "nder", "mp", "rk", "st", "ng", "ble"] * 4


def by_kind(report, file="training_file"):
    return {f.kind: f for f in report.findings if f.file == file}


def test_nothing_is_found_in_a_realistic_clean_file(tmp_path: Path):
    report = analyse(write(tmp_path / "rows.jsonl", clean()), base=BASE, n_epochs=3).report
    assert report.findings == []
    assert (tokens := report.training_file.tokens)
    assert tokens.min <= tokens.median <= tokens.p95 <= tokens.max
    assert 0 < tokens.answer_share < 1
    assert report.estimated_trained_tokens == 3 * tokens.total


def test_every_planted_fault_is_found_in_its_line_and_no_other(tmp_path: Path):
    rows, where = clean(), {}
    for kind, faulty in planted().items():
        assert len(faulty) == EACH
        where[kind] = list(range(len(rows) + 1, len(rows) + EACH + 1))
        rows += faulty
    where["too_long"] = list(range(len(rows) + 1, len(rows) + EACH + 1))
    rows += [pair(unique(200 + i), f"第{i}条" + "規則です。" * 2000) for i in range(EACH)]
    where["no_answer"] = list(range(len(rows) + 1, len(rows) + EACH + 1))
    for i in range(EACH):
        question, answer = pair(unique(300 + i), f"第{i}規則のとおりです。")
        rows.append([question, answer | {"weight": 0}])
    report = analyse(write(tmp_path / "rows.jsonl", rows), base=BASE).report
    assert {kind: finding.lines for kind, finding in by_kind(report).items()} == where
    # Nothing of a row stands in the report.
    text = report.model_dump_json()
    assert not [m for row in rows for m in row if len(m["content"]) > 8 and m["content"] in text]


def test_validation_rows_that_are_trained_on_are_found_exact_and_near(tmp_path: Path):
    training = clean()
    validation = [pair(unique(i), f"手順{i}は倉庫で確認します。") for i in range(EACH)]
    validation += training[:EACH]
    validation += [nearly(row, i) for i, row in enumerate(training[EACH : 2 * EACH])]
    paths = write(tmp_path / "a.jsonl", training), write(tmp_path / "b.jsonl", validation)
    found = by_kind(analyse(*paths).report, "validation_file")
    assert found["validation_overlap"].lines == list(range(EACH + 1, 2 * EACH + 1))
    assert found["validation_overlap"].like == list(range(1, EACH + 1))
    assert found["validation_near_overlap"].lines == list(range(2 * EACH + 1, 3 * EACH + 1))
    assert found["validation_near_overlap"].like == list(range(EACH + 1, 2 * EACH + 1))


def test_the_same_sentence_for_very_many_questions_is_said(tmp_path: Path):
    rows = clean() + [pair(unique(i), "担当者にお問い合わせください。") for i in range(EACH)]
    found = by_kind(analyse(write(tmp_path / "rows.jsonl", rows)).report)
    assert found["repeated_answer"].lines == list(range(len(rows) - EACH + 1, len(rows) + 1))


@pytest.mark.parametrize(
    "text",
    [
        "ご注文番号は202611251234567です。伝票番号は1234-5678-9012です。",
        "JANコードは4901234567894、品番はSK-1234567890123、価格は1,234,567円です。",
        "フリーダイヤル0120-444-113、内線は6294です。",
        "お問い合わせは info@kamado.co.jp または support@kamado.co.jp まで。",
        "パスワードは8文字以上で、英字と数字を含めてください。",
        "password: see the handbook, token: ask your manager",
        "営業時間は2026-11-25 10:00-18:30です。バージョンは10.0.26100.4652です。",
        "The serial number 0312345678 is on the plate; the build is 20261125.1300.",
    ],
)
def test_what_companies_write_all_day_is_not_sensitive(text):
    assert kinds_in(text) == set()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("担当の携帯は０９０－１２３４－５６７８です", "phone_number"),
        ("電話:0332101234", "phone_number"),
        ("カードは5555-5555-5555-4444です", "card_number"),
        ("個人番号:123456789018", "my_number"),
        ("連絡先はhanako_yamada@kamado.co.jpです", "email_address"),
        ("パスワードは「Kamado2026!」です", "secret"),
    ],
)
def test_sensitive_data_is_seen_inside_japanese_sentences(text, kind):
    assert kind in kinds_in(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Settings の Accounts を開いてください。", "ja"),
        ("東京都千代田区", None),
        ("请问这个零件的保修期是多久？", "zh"),
        ("이 부품의 보증 기간은 얼마입니까?", "ko"),
        ("When the lid is open, the kiln shows error E12.", "en"),
        ("docker compose up --detach --build", None),
    ],
)
def test_the_language_is_told_or_left_open(text, language):
    assert language_of(text) == language


def test_a_large_files_languages_are_told_for_a_sample_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(language, "EVERY_ROW", 100)
    rows = clean()
    report = analyse(write(tmp_path / "rows.jsonl", rows)).report
    part = report.training_file
    sampled = 100 + len(range(100, len(rows) + 1, language.ONE_IN)) - 1
    assert (part.rows, part.sampled_rows) == (len(rows), sampled)
    assert sum(part.languages.values()) == sampled
    assert report.limits == [
        f"Languages were told in {sampled} of the {len(rows)} rows of the training file."
    ]


def test_long_rows_that_nearly_repeat_are_found_and_those_that_share_their_words_are_not(
    tmp_path: Path,
):
    draw = random.Random(3)
    words = [f"{draw.choice('bdfgk')}{draw.choice('aeiou')}{end}" for end in WORD_ENDS]
    rows = [pair(" ".join(draw.choices(words, k=300)), "It is in the hall.") for _ in range(200)]
    assert all(len(row[0]["content"]) > near.MANY_CHARACTERS for row in rows)
    changed = [pair(row[0]["content"] + " please", "It is in the hall.") for row in rows[:EACH]]
    found = by_kind(analyse(write(tmp_path / "rows.jsonl", rows + changed)).report)
    assert found["near_duplicate"].lines == list(range(201, 201 + EACH))
    assert found["near_duplicate"].like == list(range(1, EACH + 1))


def test_a_finding_names_so_many_lines_and_counts_on():
    found = Found()
    for line in range(1, 1001):
        found.add("training_file", "duplicate", line, 1)
    [finding] = found.ordered()
    assert finding.like
    assert (finding.count, len(finding.lines), len(finding.like)) == (1000, MAX_LINES, MAX_LINES)


def test_the_part_that_is_kept_with_a_file_says_nothing_of_the_other(tmp_path: Path):
    training, validation = clean()[:40], clean()[:20]
    paths = write(tmp_path / "a.jsonl", training), write(tmp_path / "b.jsonl", validation)
    report = analyse(*paths).report
    about = report.about("validation_file")
    assert (about.training_file.rows, about.validation_file, about.findings) == (20, None, [])


def test_errors_are_the_kinds_that_fail_a_job():
    errors = {name for name, kind in KINDS.items() if kind.severity == "error"}
    assert errors == {"too_long", "no_answer", "unmaskable"}
    assert json.dumps(sorted(errors))
