"""Grapheme clusters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.grapheme_clusters import clusters
from refllm.tokenizer.words.unicode_categories import members

PARTS = [
    "a",
    "é",
    "e\u0301",
    "\r",
    "\n",
    "\r\n",
    "\u0600",
    "\u200d",
    "\u0903",
    "\u0e33",
    "가",
    "각",
    "\u1100",
    "\u1161",
    "\u11a8",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a\r\n\r\nb", ["a", "\r\n", "\r\n", "b"]),
        ("e\u0301\u200da", ["e\u0301\u200d", "a"]),
        ("\n\u0301a", ["\n", "\u0301", "a"]),
        ("\u0600a\u0600\n", ["\u0600a", "\u0600", "\n"]),
        ("\u1100\u1161\u11a8가\u11a8각\u1161", ["\u1100\u1161\u11a8", "가\u11a8", "각", "\u1161"]),
        ("a\u0903b\u1038", ["a\u0903", "b", "\u1038"]),
    ],
)
def test_a_cluster_ends_where_the_annex_says(text, expected):
    assert clusters(text) == expected


@given(st.lists(st.sampled_from(PARTS) | st.characters(exclude_categories=["Cs"])).map("".join))
def test_clusters_join_to_the_text(text):
    assert "".join(clusters(text)) == text


@pytest.mark.oracle
@given(data=st.data())
def test_short_clusters_are_those_of_regex(hard_text, data):
    """Clusters of six bytes or more go by characters in both; characters that Unicode 16 lacks are left out."""
    regex = pytest.importorskip("regex", reason="not installed: pip install regex")
    text = data.draw(st.lists(st.sampled_from(PARTS) | hard_text, max_size=4).map("".join))

    def cut(parts):
        return [short for part in parts for short in ([part] if len(part.encode()) < 6 else part)]

    if not members("Cn")[list(map(ord, text))].any():
        assert cut(clusters(text)) == cut(regex.findall(r"\X", text))
