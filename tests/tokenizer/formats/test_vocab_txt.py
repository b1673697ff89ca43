"""BERT's vocab.txt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.formats import vocab_txt
from refllm.tokenizer.words.bert import CASED, UNCASED, BertRules

LINES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "."]


@pytest.fixture
def write(tmp_path):
    """Writes a vocab.txt, with a config where one is given."""

    def written(lines, config=None, ending="\n"):
        path = tmp_path / "vocab.txt"
        path.write_bytes("".join(line + ending for line in lines).encode())
        if config is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return path

    return written


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_line_is_a_piece_and_its_number_the_id(write, ending):
    tokenizer = vocab_txt.load(write(LINES, ending=ending))
    assert tokenizer.encode("AB a.zz[MASK]", allowed_special="all") == [6, 7, 6, 8, 2, 5]
    assert tokenizer.vocab_size == len(LINES)
    assert tokenizer.model.pieces == {1: "[unused0]", 6: "a", 7: "##b", 8: "."}
    assert tokenizer.special_tokens == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert (tokenizer.bos, tokenizer.eos, tokenizer.model.unknown) == (3, 4, 2)
    assert tokenizer.with_special_tokens([6]) == [3, 6, 4]


@pytest.mark.parametrize("lines", [LINES, ["a", "b", "[UNK]"], ["[UNK]", "a"]])
def test_a_file_is_known_by_its_lines_or_its_name(write, lines):
    path = write(lines)
    assert (
        Tokenizer.load(path.parent).encode("a zz") == Tokenizer.load(path).encode("a zz") == vocab_txt.load(path).encode("a zz")
    )
    assert Tokenizer.load(path.rename(path.with_name("words"))).encode("a zz") == [lines.index("a"), lines.index("[UNK]")]


def test_the_last_line_need_not_end():
    assert vocab_txt.read_pieces(b"a\nb") == vocab_txt.read_pieces(b"a\nb\n") == ["a", "b"]
    assert vocab_txt.read_pieces("a\n\u2028\n\x85\n".encode()) == ["a", "\u2028", "\x85"]  # only a newline ends a line


@pytest.mark.parametrize(
    ("more", "config", "rules"),
    [
        ([], None, UNCASED),
        (["The"], None, CASED),
        (["[UNUSED]"], None, UNCASED),
        (["##É"], None, CASED),
        (["The"], {"do_lower_case": True}, UNCASED),
        ([], {"do_lower_case": False, "strip_accents": None}, CASED),
        ([], {"tokenize_chinese_chars": False, "strip_accents": False}, BertRules(True, False, False, True)),
    ],
)
def test_the_config_says_how_text_is_cut_or_else_the_vocabulary_does(write, more, config, rules):
    path = write(LINES + more, config)
    assert vocab_txt.load(path).model.rules == rules
    assert vocab_txt.load(path, lowercase=not rules.lowercase).model.rules == rules._replace(lowercase=not rules.lowercase)


def test_the_config_may_name_other_special_tokens(write):
    config = {
        "unk_token": {"content": "<unk>"},
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
        "pad_token": None,
    }
    tokenizer = vocab_txt.load(write(["<s>", "</s>", "<unk>", "a", "[PAD]"], config))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.model.unknown) == (0, 1, 2)
    assert tokenizer.special_tokens == {"<s>", "</s>", "<unk>"}
    assert tokenizer.encode("<unk> a z", allowed_special="all") == [2, 3, 2]


def test_a_vocabulary_without_cls_and_sep_puts_nothing_around_a_text(write):
    tokenizer = vocab_txt.load(write(["[UNK]", "a"]))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.with_special_tokens([1])) == (None, None, [1])


@pytest.mark.parametrize(
    ("lines", "config", "message"),
    [
        ([], None, r"vocab\.txt has no \[UNK\], which stands for unknown words; it is no vocab\.txt, or truncated\.$"),
        (["[PAD]", "a"], None, r"vocab\.txt has no \[UNK\]"),
        (LINES, {"unk_token": "<unk>"}, r"vocab\.txt has no <unk>"),
        ([*LINES, "a"], None, r"not a whole vocab\.txt \(lines 7 and 10 are both 'a'\); copy it again\.$"),
        ([*LINES, "\udcff"], None, r"not a whole vocab\.txt \('utf-8' codec can't decode .*\); copy it again\.$"),
        (LINES, [], r"tokenizer_config\.json holds a JSON list"),
        (LINES, {"do_lower_case": "yes"}, r"tokenizer_config\.json: do_lower_case is 'yes'; it is true, false or null\.$"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, lines, config, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes("".join(line + "\n" for line in lines).encode(errors="surrogateescape"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        vocab_txt.load(path)


def test_a_truncated_config_is_refused(tmp_path, write):
    path = write(LINES)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not whole JSON .* Copy it again\.$"):
        vocab_txt.load(path)


@given(data=st.binary(max_size=40), place=st.integers(0, 60))
def test_damage_raises_nothing_but_value_error(tmp_path_factory, data, place):
    whole = "\n".join(LINES).encode()
    path = tmp_path_factory.getbasetemp() / "fuzzed-vocab.txt"
    path.write_bytes(whole[:place] + data + whole[place + len(data) :])
    try:
        tokenizer = vocab_txt.load(path)
    except ValueError as error:
        message = str(error)
    else:
        message = f"{path}: {tokenizer.encode('zz')}"
    assert str(path) in message


@pytest.mark.oracle
@given(draw=st.data())
def test_the_ids_are_those_of_tokenizers_for_a_cased_vocabulary(packaged, tmp_path_factory, hard_text, draw):
    from tokenizers import BertWordPieceTokenizer

    folder = tmp_path_factory.getbasetemp()
    source = (packaged("bert") / "vocab.txt").read_text(encoding="utf-8")
    path = folder / "cased-vocab.txt"
    path.write_text(source + "The\nTHE\nHello\nÉ\n", encoding="utf-8")
    text = draw.draw(hard_text)
    expected = BertWordPieceTokenizer(str(path), lowercase=False).encode(text, add_special_tokens=False)
    assert vocab_txt.load(path).encode(text, allowed_special="all") == expected.ids
