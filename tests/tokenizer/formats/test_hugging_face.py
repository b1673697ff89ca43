"""Hugging Face's files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import AddedToken, Tokenizer, train_bpe
from refllm.tokenizer.byte_level import to_characters


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    trained.save(path)
    return path


@pytest.fixture
def small():
    return train_bpe("low lower lowest", 262)


def equal(one, other):
    return (
        one.model.vocabulary == other.model.vocabulary
        and one.model.merges == other.model.merges
        and one.model.whole_words == other.model.whole_words
        and (one.added, one.bos, one.eos, one.vocab_size) == (other.added, other.bos, other.eos, other.vocab_size)
    )


def test_a_saved_tokenizer_is_read_back_the_same(trained, file):
    assert equal(Tokenizer.load(file), trained)
    assert equal(Tokenizer.load(file.parent), trained)
    assert equal(Tokenizer.load(str(file)), trained)


def test_a_folder_gets_the_file_of_that_name_and_nothing_else(small, tmp_path):
    small.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    assert equal(Tokenizer.load(tmp_path), small)


def test_added_tokens_and_whole_words_are_kept(small, tmp_path):
    model = type(small.model)(small.model.vocabulary, small.model.merges, whole_words=True)
    extended = Tokenizer(model, [*small.added, AddedToken(400, "<|pad|>", True), AddedToken(401, " then", False)])
    extended.save(tmp_path)
    assert equal(Tokenizer.load(tmp_path), extended)


def test_gpt2s_files_are_read(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.eos == 50256
    assert gpt2.encode("Hello world") == [15496, 995]


def test_damaged_files_of_gpt2_are_refused_in_one_sentence(tmp_path):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocab.write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"merges\.txt is not there; vocab\.json and merges\.txt belong together\.$"):
        Tokenizer.load(vocab, merges)
    merges.write_text("#version: 0.2\na b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json with merges\.txt: merge 0 is 'a b', which is not a pair of tokens"):
        Tokenizer.load(vocab, merges)
    vocab.write_text('{"a": 0, "b"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json is not whole JSON \(.*\); it may be truncated\. Copy it again\.$"):
        Tokenizer.load(vocab, merges)


def changed(file, tmp_path, **fields):
    """A copy of the file with some fields changed: model__type="WordPiece"."""
    document = json.loads(file.read_text(encoding="utf-8"))
    for name, value in fields.items():
        *parents, last = name.split("__")
        part = document
        for parent in parents:
            part = part[parent]
        if value is KeyError:
            del part[last]
        else:
            part[last] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("pairs", [True, False])
def test_merges_are_read_as_strings_and_as_pairs(small, tmp_path, pairs):
    small.save(tmp_path)
    merges = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    merges = [merge.split(" ") for merge in merges] if pairs else merges
    assert equal(Tokenizer.load(changed(tmp_path / "tokenizer.json", tmp_path, model__merges=merges)), small)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__type": "WordLevel"}, "model.type is 'WordLevel'; what is read here is 'BPE' or 'Unigram' or 'WordPiece'"),
        ({"model": KeyError}, "is no tokenizer.json: it has no 'model'."),
        ({"model__merges": KeyError}, "is not built as a tokenizer.json (KeyError: 'merges'); write it again."),
        ({"model__vocab": [1, 2]}, "is not built as a tokenizer.json"),
        ({"added_tokens": [{"id": 1}]}, "is not built as a tokenizer.json (KeyError: 'content'); write it again."),
        (
            {"added_tokens": [{"id": 1, "content": "<a>", "lstrip": 3, "special": True}]},
            "lstrip of the added token '<a>' is 3; it is true or false.",
        ),
        (
            {"added_tokens": [{"id": "1", "content": "<a>", "special": True}]},
            "the added token '<a>' has the id '1'; a text and a whole number are needed.",
        ),
        ({"added_tokens": [{"id": 1 << 22, "content": "<a>"}]}, "needs a text, and an id from 0 up, below 4,194,304."),
        ({"normalizer": {"type": "Nmt"}}, "normalizer.type is 'Nmt'; what is read here is 'NFC' or"),
        (
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}},
            "normalizer.pattern is 'a*'; what is read here is a pattern that finds at least one character.",
        ),
        ({"normalizer": {"type": "Prepend", "prepend": 5}}, "normalizer.prepend is 5; a text is needed."),
        (
            {"pre_tokenizer": {"type": "Whitespace"}},
            "the last part of pre_tokenizer is 'Whitespace'; what is read here is 'ByteLevel'.",
        ),
        ({"decoder": None}, "decoder is [None]; what is read here is ['ByteLevel']."),
        (
            {"post_processor": {"type": "Mine"}},
            "post_processor.type is 'Mine'; what is read here is 'ByteLevel' or 'TemplateProcessing'",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["</s>", 9999], "cls": ["<s>", 9999]}},
            "the template puts id 9999 around a text, which is not in the vocabulary.",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["</s>", True], "cls": ["<s>", 1]}},
            "post_processor has the id True; an id is a whole number from 0 up.",
        ),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": [], "special_tokens": {}}},
            "the number of texts in post_processor.single is 0; what is read here is 1.",
        ),
        ({"model__dropout": 0.1}, "model.dropout is 0.1; what is read here is None."),
        ({"model__merges": ["a b c"]}, "merge 0 is 'a b c', which is not a pair of tokens of the vocabulary."),
        ({"model__merges": ["a ☃"]}, "merge 0 is 'a ☃', which is not a pair of tokens of the vocabulary."),
        ({"model__merges": ["a b"]}, "merge 0 makes b'ab', which is not in the vocabulary."),
        ({"model__vocab__☃": 999}, "'☃' is not a byte-level spelling: '☃' stands for no byte."),
        ({"model__vocab__zz": 0}, "two tokens of the vocabulary share an id."),
        ({"model__vocab__zz": "7"}, "an id of the vocabulary is not a whole number from 0 up, below 4,194,304."),
        ({"model__vocab__a": KeyError}, "the vocabulary lacks 1 of the 256 bytes, such as 0x61; it needs all."),
    ],
)
def test_a_file_that_cannot_be_read_exactly_is_refused_in_one_sentence(small, tmp_path, fields, message):
    small.save(tmp_path)
    with pytest.raises(ValueError, match="tokenizer.json") as error:
        Tokenizer.load(changed(tmp_path / "tokenizer.json", tmp_path, **fields))
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


@given(st.data())
def test_a_truncated_file_is_refused_in_one_sentence(file, data):
    whole = file.read_bytes()
    part = file.with_name("part.json")
    part.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"part\.json is not whole JSON \(.*\); it may be truncated\. Copy it again\.$"):
        Tokenizer.load(part)


@given(st.data())
def test_a_damaged_file_is_read_or_refused_by_name(file, data):
    document = json.loads(file.read_text(encoding="utf-8"))
    part = data.draw(st.sampled_from([document, document["model"], document["pre_tokenizer"], document["added_tokens"][0]]))
    junk = st.sampled_from([None, True, -1, 3, "x", [], {}, ["x"], {"x": 1}, [[1, 2]]])
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(junk)
    damaged = file.with_name("damaged.json")
    damaged.write_text(json.dumps(document), encoding="utf-8")
    refusal = None
    try:
        Tokenizer.load(damaged).encode("text", disallowed_special=())
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or refusal.startswith(str(damaged))


def test_an_interrupted_save_leaves_the_old_file_whole(small, tmp_path, monkeypatch):
    small.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        small.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


@pytest.mark.oracle
@given(data=st.data())
def test_the_file_gives_the_same_ids_in_tokenizers(trained, file, hard_text, data):
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(file))
    text = data.draw(hard_text)
    ids = trained.encode(text, allowed_special="all")
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.oracle
def test_the_folder_gives_the_same_ids_in_transformers(trained, file, topics):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(file.parent)
    text = topics[:5000] + "<|endoftext|> it's — 😀"
    assert theirs.encode(text) == trained.encode(text, allowed_special="all")
    assert theirs.decode(theirs.encode(text)) == text


@pytest.mark.oracle
def test_files_that_hugging_face_writes_are_read(tmp_path, topics):
    from tokenizers import Tokenizer as Theirs
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    theirs = Theirs(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    theirs.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([topics[:50_000]], trainer)
    theirs.add_tokens([" added words"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    text = topics[:20_000] + " added words<|endoftext|>."
    assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids
    assert ours.vocab_size == theirs.get_vocab_size()
    assert ours.bytes_of(theirs.token_to_id("Ġt")) == b" t"
    assert to_characters(ours.bytes_of(300)) == theirs.id_to_token(300)
