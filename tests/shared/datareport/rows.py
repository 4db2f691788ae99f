"""A realistic clean training file, half English and half Japanese, and 20 rows of every fault."""

import json
import random
from pathlib import Path
from typing import Any

from stdnum import luhn
from stdnum.jp import in_ as my_number

COMPANY = Path("examples/company/train.jsonl")
EACH = 20
Row = list[dict[str, Any]]

THINGS = [
    "蓋スイッチ", "扉パッキン", "電熱線", "制御基板", "温度計", "耐火棚板", "排気ファン", "台車",
    "操作パネル", "安全カバー", "点検窓", "断熱材", "火口部品", "支柱", "車輪", "電源装置",
    "冷却ポンプ", "圧力計", "記録装置", "保護手袋",
]  # fmt: skip
QUESTIONS = [
    ("{thing}の部品番号を教えてください。", "{thing}の部品番号は{a}-{n}です。"),
    ("{thing}の価格はいくらですか。", "{thing}の価格は税込{n},{m}円です。"),
    (
        "{thing}の納期はどのくらいかかりますか。",
        "ご注文から{d}営業日で発送いたします。注文番号は2026{n}{m}{n}です。",
    ),
    (
        "{thing}の保証は何か月ありますか。",
        "保証期間はお買い上げから{d}か月です。フリーダイヤル0120-{n}-{m}へどうぞ。",
    ),
    (
        "倉庫で{thing}が置かれている場所はどこですか。",
        "{thing}は第{d}倉庫の棚{a}{n}にあります。伝票は{m}-{n}-{m}です。",
    ),
    (
        "{thing}を交換する周期を知りたいです。",
        "{thing}は運転{n}時間ごとに交換します。JANは4901{n}{m}{n}です。",
    ),
]


def clean() -> list[Row]:
    """The company's 400 English rows, and 120 Japanese ones with all kinds of numbers."""
    rows = [json.loads(line)["messages"] for line in COMPANY.read_text().splitlines()]
    chance = random.Random(5)
    for thing in THINGS:
        for ask, say in QUESTIONS:
            facts = {
                "thing": thing,
                "a": chance.choice("ABCDEFG") + chance.choice("KLMN"),
                "n": chance.randint(100, 999),
                "m": chance.randint(100, 999),
                "d": chance.randint(2, 30),
            }
            rows.append(pair(ask.format(**facts), say.format(**facts)))
    chance.shuffle(rows)
    return rows


def pair(question: str, answer: str) -> Row:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "weight": 1},
    ]


def planted() -> dict[str, list[Row]]:
    """So many rows of each kind that can be seen in one file, by kind."""
    rows = clean()
    english = [row for row in rows if row[0]["content"].isascii()]
    japanese = [row for row in rows if not row[0]["content"].isascii()]
    some = english[:10] + japanese[:10]
    others = english[20:30] + japanese[20:30]
    third = english[40:50] + japanese[40:50]
    return {
        "duplicate": some,
        "near_duplicate": [nearly(row, i) for i, row in enumerate(others)],
        "contradiction": [
            pair(row[0]["content"], f"That was changed in spring {i}; ask the office on floor {i}.")
            for i, row in enumerate(third[:10])
        ]
        + [
            pair(row[0]["content"], f"規則が変わりました。{i}階の事務所で確認してください。")
            for i, row in enumerate(third[10:])
        ],
        "empty_answer": [
            pair(unique(i), mark) for i, mark in enumerate(["。", "…", "---", "？"] * 5)
        ],
        "boilerplate_answer": [
            pair(unique(i + 20), text)
            for i, text in enumerate(["N/A", "TODO", "わかりません。", "I don't know.", "未定"] * 4)
        ],
        "secret": [
            pair(unique(i + 40), f"鍵は{secret} です。" if i < 10 else f"Use {secret}")
            for i, secret in enumerate(secrets())
        ],
        "card_number": [
            pair(unique(i + 60), f"カード番号は{card(i)}で承りました。") for i in range(EACH)
        ],
        "my_number": [
            pair(unique(i + 80), f"マイナンバーは{individual(i)}と届いています。")
            for i in range(EACH)
        ],
        "bank_account": [
            pair(unique(i + 100), "振込先はDE89 3704 0044 0532 0130 00です。") for i in range(EACH)
        ],
        "email_address": [
            pair(unique(i + 120), f"担当は{name}.{i}@kamado-seisakusho.co.jpです。")
            for i, name in enumerate(["taro", "hanako", "sato", "suzuki"] * 5)
        ],
        "phone_number": [
            pair(unique(i + 140), f"担当は{phone}です。") for i, phone in enumerate(phones())
        ],
        "rare_language": [
            pair(
                f"Quel est le délai de livraison de la pièce numéro {i} dans notre catalogue ?",
                f"Le délai de livraison de la pièce numéro {i} est de neuf jours ouvrables.",
            )
            for i in range(EACH)
        ],
        "answer_language": [
            pair(unique(i + 160), f"Please ask the leader of hall {i} before you open the kiln.")
            for i in range(EACH)
        ],
    }  # fmt: skip


def unique(number: int) -> str:
    """A question that no other row asks."""
    thing = THINGS[number % len(THINGS)]
    return f"第{number + 1}工場の{thing}について、手順{number}を説明してください。"


def nearly(row: Row, number: int) -> Row:
    """The row with a blank, another case, a mark or one word more."""
    question, answer = row[0]["content"], row[1]["content"]
    changed = (
        (f" {question} ", answer),
        (question.swapcase(), answer.rstrip(".。")),
        (question.rstrip(".。?？") + "？", answer + " "),
        (question, answer.rstrip(".。") + "!"),
    )[number % 4]
    return pair(*changed)


def secrets() -> list[str]:
    """Made up; put together here, so that no scanner takes this file for a leak."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"

    def some(count: int, alphabet: str = letters) -> str:
        return "".join(random.Random(count).choices(alphabet, k=count))

    jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + some(43)
    found = [
        "AKIA" + "IOSFODNN7EXAMPL" + "Q",
        "ghp_" + some(36),
        "xoxb-" + "123456789012-123456789012-" + some(24),
        "sk-proj-" + some(40),
        "sk_live_" + some(24),
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        jwt,
        "postgresql://admin:" + "geheim99@db.internal/tailor",
        "password: " + "Kamado#2026x",
        "glpat-" + some(20),
    ]
    return found * (EACH // len(found))


def card(number: int) -> str:
    base = f"4{number:03d}1234567890{number % 10}"
    digits = base + luhn.calc_check_digit(base)
    return " ".join(digits[i : i + 4] for i in range(0, 16, 4)) if number % 2 else digits


def individual(number: int) -> str:
    base = f"123456789{number:02d}"
    return f"{base}{my_number.calc_check_digit(base)}"


def phones() -> list[str]:
    return [
        form.format(1000 + 37 * number)
        for number in range(EACH // 5)
        for form in (
            "090-1234-{}",
            "0801234{}",
            "03-3210-{}",
            "+81 90 5678 {}",
            "06-6345-{}",
        )
    ]


def write(path: Path, rows: list[Row]) -> Path:
    """Write normalised rows; a row's line is its place."""
    with path.open("w", encoding="utf-8") as file:
        for line, messages in enumerate(rows, 1):
            file.write(json.dumps({"line": line, "messages": messages}, ensure_ascii=False) + "\n")
    return path
