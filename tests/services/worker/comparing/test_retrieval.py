"""Retrieval: the right text first, in every script, always in the same order."""

import pytest

from services.worker.comparing.embedding import BundledEmbedder
from services.worker.comparing.retrieval import bm25, embedding, hybrid, retriever_over, terms

TEXTS = [
    "A refund takes fourteen days.",
    "返品は三十日以内にお願いします。",
    "Our head office is in Oslo.",
    "ราคาสินค้าอยู่ในรายการ",
    "Our head office is in Oslo.",
]

pytestmark = pytest.mark.slow  # the indexes take seconds to import


@pytest.fixture(scope="module")
def bundled() -> BundledEmbedder:
    """The model that is installed with Tailor."""
    return BundledEmbedder(threads=1)


def test_bm25_finds_words_and_where_there_are_no_blanks_pairs_of_characters():
    index = bm25(TEXTS)
    questions = ["How long does a REFUND take?", "返品はいつまでですか", "ราคาเท่าไร"]
    assert index.rank_all(questions, 1) == [[0], [1], [3]]
    assert terms("ＡＢ ﾃｽﾄ 東京タワー2024") == [
        "ab",
        "テス",
        "スト",
        "東京",
        "京タ",
        "タワ",
        "ワー",
        "2024",
    ]


def test_equally_near_texts_come_in_their_own_order(bundled):
    assert bm25(TEXTS).rank("head office", 3) == [2, 4, 0]
    assert bm25(TEXTS).rank("!?", 9) == [0, 1, 2, 3, 4]
    assert embedding(TEXTS, bundled).rank("Where is the head office?", 2) == [2, 4]


def test_embeddings_find_by_meaning_what_shares_no_word(bundled):
    texts = ["The office is in Oslo.", "A refund takes fourteen days.", "Lunch is served at noon."]
    questions = ["When do I get my money back?", "お昼ご飯はいつですか"]
    assert embedding(texts, bundled).rank_all(questions, 1) == [[1], [2]]


def test_hybrid_is_reciprocal_rank_fusion_and_counts_only_what_was_found(bundled):
    by_words, by_meaning = bm25(TEXTS), embedding(TEXTS, bundled)
    question = "本社の返品"
    meaning = by_meaning.rank(question, 5)
    scores = dict.fromkeys(range(5), 0.0)
    for place, index in enumerate(meaning, start=1):
        scores[index] += 1 / (60 + place)
    scores[1] += 1 / 61  # the only text that shares characters
    expected = sorted(scores, key=lambda index: (-scores[index], index))
    assert hybrid(by_words, by_meaning).rank(question, 5) == expected


def test_many_questions_are_ranked_as_one_by_one_and_twice_the_same(bundled):
    index = hybrid(bm25(TEXTS), embedding(TEXTS, bundled))
    questions = ["refund", "返品", "Oslo", ""]
    one_by_one = [index.rank(question, 5) for question in questions]
    assert index.rank_all(questions, 5) == index.rank_all(questions, 5) == one_by_one


def test_more_texts_than_are_embedded_are_searched_by_bm25_and_it_is_said(bundled):
    index, remark = retriever_over("hybrid", TEXTS, bundled, max_texts=4)
    assert index.rank("refund", 1) == [0]
    assert remark is not None
    assert "5 texts" in remark
    assert retriever_over("hybrid", TEXTS, bundled, max_texts=5)[1] is None


@pytest.mark.parametrize("name", ["bm25", "embedding", "hybrid"])
def test_no_texts_are_no_answers(name, bundled):
    assert retriever_over(name, [], bundled, 10)[0].rank("x", 3) == []


def test_a_long_text_and_a_nul_are_embedded_in_bounded_time(bundled):
    vectors = bundled.passages(["word " * 20_000, "word " * 400, "x\0y", "x y"])
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[2] == vectors[3]).all()
