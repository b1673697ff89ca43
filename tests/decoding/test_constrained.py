"""Constrained decoding: the mask is that of brute force, every finished text is in form, and there is no dead end."""

import functools
import itertools
import json
import re
import sys
import types

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding import Mirostat, Sampler, remember, sample, uniforms
from refllm.decoding.constrained import Constraint, by_choices, by_json_schema, by_regex, constrain
from refllm.tokenizer import AddedToken, Tokenizer, train_bpe

ALPHABET = "abé"
BYTES = sorted({bytes([byte]) for character in ALPHABET + " " for byte in character.encode()})


def small_tokenizer(words, prefix=""):
    """Every byte of the alphabet, some longer words, some of them twice, nothing at all once, and an end."""
    vocabulary = dict(enumerate([b"", *BYTES, *words, b"ab"]))
    model = types.SimpleNamespace(vocabulary=vocabulary, prefix=prefix)
    return Tokenizer(model, [AddedToken(len(vocabulary) + i, end, special=True) for i, end in enumerate(["<s>", "</s>"])])


pieces = st.lists(st.text(ALPHABET + " ", min_size=1, max_size=3).map(str.encode), max_size=6)


atoms = st.sampled_from(["a", "b", "é", " ", "[aé]", "[^b]?", "b?", "a{0,1}", "(?i:A)", r"\s", "."])  # of one letter at most
sequences = st.lists(atoms, max_size=4).map("".join)
expressions = st.lists(sequences, min_size=1, max_size=3).map("|".join)


@functools.cache
def texts():
    """Every text of at most 4 letters."""
    return ["".join(letters) for n in range(5) for letters in itertools.product(ALPHABET + " ", repeat=n)]


def language(expression):
    """The texts of an expression, in bytes, told apart by Python's re."""
    return [text.encode() for text in texts() if re.fullmatch(expression, text)]


def by_brute_force(tokenizer, written, spelled, begins):
    """The mask by the specification's definition."""
    ids, tokens = zip(*tokenizer.model.vocabulary.items(), strict=True)
    allowed, before = np.zeros(tokenizer.vocab_size, dtype=bool), b"".join(written)
    if begins and not before:  # the first token loses its space, if it has one
        seen = [token.removeprefix(b" ") for token in tokens]
        spaces = [token == b" " for token in tokens]  # which leaves nothing: it may stand where any text may
        follow = [ok or space for ok, space in zip(definitions()["may_follow"](b"", seen, spelled), spaces, strict=True)]
    else:
        before = before.removeprefix(b" ") if begins else before
        follow = definitions()["may_follow"](before, tokens, spelled)
    allowed[list(ids)] = follow
    allowed[tokenizer.eos] = definitions()["may_end"](before, spelled)
    return allowed


@given(st.data())
def test_the_mask_is_that_of_brute_force(data):
    begins = data.draw(st.booleans(), "with a prefix")
    tokenizer = small_tokenizer(data.draw(pieces, "words"), " " if begins else "")
    expression = data.draw(expressions, "expression")
    spelled = language(expression)
    form = by_regex(expression)
    if all(spelled) and data.draw(st.booleans(), "as choices"):
        form = by_choices([text.decode() for text in spelled])
    constraint, written = constrain(form, tokenizer, context=[tokenizer.bos] if data.draw(st.booleans()) else []), []
    while not constraint.finished:
        expected = by_brute_force(tokenizer, written, spelled, begins)
        np.testing.assert_array_equal(constraint.allowed(), expected)
        assert constraint.accepts == expected[tokenizer.eos]
        token = data.draw(st.sampled_from([id for id in np.flatnonzero(expected) if id != tokenizer.eos]), "next")
        constraint.advance(token)
        written.append(tokenizer.bytes_of(int(token)))
    np.testing.assert_array_equal(constraint.allowed(), by_brute_force(tokenizer, written, spelled, begins))


@pytest.fixture(scope="module", params=["gpt2", "llama2", "trained"])
def tokenizer(request, data):
    """Two real vocabularies and one trained here."""
    if request.param == "gpt2":
        return Tokenizer.load(data / "gpt2-encoder.json", data / "gpt2-vocab.bpe")
    if request.param == "llama2":
        return Tokenizer.load(data / "llama2-tokenizer.model")
    return trained()


@functools.cache
def trained():
    return train_bpe("Grüße, δοκιμή und 試験! " * 20, 300, special_tokens=["<|endoftext|>"])


EXPRESSIONS = [
    r"\d{4}-(0[1-9]|1[0-2])-[0-3]\d",
    r"(Grüße|試験|🌍){1,3}!?",
    r" ?[^\x00-\x7f]{2} ?[a-f]{0,5}",
    r"(?i)yes|no|\s*maybe",
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["gut", "größer", None, 3]},
        "years": {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 120}, "maxItems": 3},
        "exact": {"type": "boolean"},
    },
    "required": ["name", "kind", "exact"],
    "additionalProperties": False,
}
CHOICES = ["yes", "yes, sir", "no", ' "quoted"\n', "größer", "a.b*", "(c|d)/[e]"]
MOST = 400  # tokens, which none of these forms reaches


def write(constraint, rng, sharpness, context=()):
    """A text drawn from random logits (Gumbel's way); sharpness 0 draws evenly, a large one the likeliest."""
    ids = []
    while not constraint.finished:
        open_to = np.flatnonzero(constraint.allowed())
        token = open_to[np.argmax(rng.standard_normal(len(open_to)) * sharpness + rng.gumbel(size=len(open_to)))]
        constraint.advance(token)
        if token in constraint.ends:
            break
        ids.append(int(token))
        assert len(ids) < MOST
    assert constraint.finished
    return constraint.tokenizer.decode([*context, *ids])[len(constraint.tokenizer.decode(context)) :]


draws = {"seed": st.integers(0, 2**32), "sharpness": st.sampled_from([0.0, 1.0, 50.0]), "behind": st.booleans()}


def context_of(tokenizer, behind):
    """Some ids of text before, or only what begins a document, if anything does."""
    return tokenizer.encode("Grüße:") if behind else [] if tokenizer.bos is None else [tokenizer.bos]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(**draws)
def test_every_finished_text_matches_the_expression(tokenizer, expression, seed, sharpness, behind):
    context = context_of(tokenizer, behind)
    constraint = constrain(by_regex(expression), tokenizer, context)
    assert re.fullmatch(expression, write(constraint, np.random.default_rng(seed), sharpness, context))


@given(**draws)
def test_every_finished_text_is_json_of_the_schema(tokenizer, seed, sharpness, behind):
    context = context_of(tokenizer, behind)
    constraint = constrain(by_json_schema(SCHEMA), tokenizer, context)
    written = json.loads(write(constraint, np.random.default_rng(seed), sharpness, context))
    jsonschema.validate(written, SCHEMA)


@given(**draws)
def test_every_finished_text_is_one_of_the_choices(tokenizer, seed, sharpness, behind):
    context = context_of(tokenizer, behind)
    constraint = constrain(by_choices(CHOICES), tokenizer, context)
    assert write(constraint, np.random.default_rng(seed), sharpness, context) in CHOICES


SAMPLERS = [
    Sampler(0.0),
    Sampler(1.0),
    Sampler(3.0, top_k=2),
    Sampler(0.7, top_p=0.5, min_p=0.1),
    Sampler(1.0, repetition_penalty=1.5, logit_bias={65: 50.0}, mirostat=Mirostat(2.0, 0.5)),
]


@given(st.sampled_from(SAMPLERS), st.integers(0, 2**32), st.sampled_from(EXPRESSIONS[1:3]))
def test_a_sampler_never_leaves_the_form(backend, sampler, seed, expression):
    xp, tokenizer, prompt = backend.xp, trained(), np.array([[65, 66]], dtype=np.int32)
    constraint, written = constrain(by_regex(expression), tokenizer), []
    memory = remember(sampler, prompt, None, xp, tokenizer.vocab_size)
    logits = np.random.default_rng(seed).standard_normal((40, 1, tokenizer.vocab_size)).astype(np.float32) * 4
    while not constraint.finished:
        step = len(written)
        numbers, allowed = xp.from_numpy(uniforms(seed, step, 1)), xp.from_numpy(constraint.allowed()[None, :])
        token, memory = sample(xp.from_numpy(logits[step]), numbers, sampler, memory, allowed)
        written.append(int(xp.to_numpy(token)[0]))
        constraint.advance(written[-1])
    assert re.fullmatch(expression, tokenizer.decode(written, skip_special=True))


def test_every_spelling_of_a_text_is_allowed(tokenizer):
    """Not only the tokenizer's own: a model may prefer another, and a mask that forbade it would bend its distribution."""
    text = "yes, sir"
    own = constrain(by_choices(CHOICES), tokenizer, context_of(tokenizer, True))
    by_bytes = own.fork()
    for byte in text.encode():
        by_bytes.advance(tokenizer.id_of(bytes([byte])))
    start = own.fork()
    ids = tokenizer.encode(text)
    if start.allowed()[ids[0]]:  # SentencePiece puts a space before a text
        for id in ids:
            own.advance(id)
        assert own.finished
    assert by_bytes.finished
    assert np.flatnonzero(by_bytes.allowed()).tolist() == [tokenizer.eos]


def test_a_fork_goes_its_own_way():
    tokenizer = small_tokenizer([])
    a, b = tokenizer.id_of("a"), tokenizer.id_of("b")
    one = constrain(by_choices(["aa", "ab"]), tokenizer)
    one.advance(a)
    other = one.fork()
    one.advance(a)
    assert one.finished
    assert not other.finished
    other.advance(b)
    assert other.finished
    other.advance(tokenizer.eos)
    assert not one.fork().allowed()[a]
    assert one.allowed()[tokenizer.eos]
    assert not other.allowed().any()
    assert not other.fork().allowed().any()


def test_a_digit_is_one_of_ten():
    constraint = constrain(by_regex(r"\d\D"), train_bpe("1", 257, special_tokens=["<|endoftext|>"]))
    tokens = [constraint.tokenizer.bytes_of(id) for id in np.flatnonzero(constraint.allowed())]
    assert sorted(tokens) == [b"%d" % digit for digit in range(10)]


@pytest.mark.parametrize(
    ("space", "goes"),
    [("", True), (" ", True), ("\n", True), ("\n\t   ", True), ("\n" + " " * 16, True), ("\n" + " " * 17, False), ("  ", False)],
)
def test_white_space_in_json_is_a_space_or_an_indentation(space, goes):
    tokenizer = trained()
    constraint = constrain(by_json_schema({"type": "array", "items": {"type": "integer"}}), tokenizer)
    for byte in f"[{space}":
        if goes or constraint.allowed()[tokenizer.id_of(byte)]:
            constraint.advance(tokenizer.id_of(byte))
    assert bool(constraint.allowed()[tokenizer.id_of("7")])
    if not goes:
        assert not constraint.allowed()[tokenizer.id_of(" ")]


def test_the_schema_may_choose_its_white_space():
    schema = {"type": "array", "items": {"type": "integer"}, "x-guidance": {"whitespace_flexible": False}}
    constraint = constrain(by_json_schema(schema), trained())
    constraint.advance(trained().id_of("["))
    assert not constraint.allowed()[trained().id_of(" ")]


def test_a_text_may_end_where_it_could_go_on():
    tokenizer = small_tokenizer([])
    constraint = constrain(by_regex("a+"), tokenizer)
    assert not constraint.accepts
    constraint.advance(tokenizer.id_of("a"))
    assert constraint.accepts
    assert not constraint.finished
    constraint.advance(tokenizer.eos)
    assert constraint.finished


def test_a_dead_end_is_told_where_it_is_reached():
    """Only a vocabulary that lacks bytes has one: this has no x."""
    tokenizer = small_tokenizer([])
    constraint = constrain(by_regex("ax"), tokenizer)
    constraint.advance(tokenizer.id_of("a"))
    assert not constraint.finished
    with pytest.raises(ValueError, match="no token of the vocabulary leads on towards the regular expression 'ax'"):
        constraint.allowed()


def test_ids_beyond_the_vocabulary_and_added_tokens_are_never_text():
    tokenizer = small_tokenizer([])
    constraint = constrain(by_regex("(?s).*"), tokenizer, vocab_size=tokenizer.vocab_size + 5, ends=())
    allowed = constraint.allowed()
    assert allowed.shape == (tokenizer.vocab_size + 5,)
    assert {tokenizer.bytes_of(id) for id in np.flatnonzero(allowed)} <= {*tokenizer.model.vocabulary.values()}
    assert not allowed[[tokenizer.bos, tokenizer.eos]].any()


def test_a_chosen_end_takes_the_place_of_the_tokenizers():
    tokenizer = small_tokenizer([])
    constraint = constrain(by_regex("a?"), tokenizer, ends=[tokenizer.bos])
    assert constraint.allowed()[tokenizer.bos]
    assert not constraint.allowed()[tokenizer.eos]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: by_regex("a("), r"the regular expression 'a\(' cannot be held to: unclosed group\.$"),
        (lambda: by_regex("(?=a)b"), "look-ahead and look-behind, is not supported"),
        (lambda: by_regex(r"(a)\1"), "backreferences are not supported"),
        (lambda: by_json_schema("{"), "the JSON schema is no JSON: .* line 1"),
        (lambda: by_json_schema([]), "the JSON schema is list; it must be an object"),
        (lambda: by_json_schema({"type": "strange"}), "failed to compile JSON schema: Invalid type: strange"),
        (lambda: by_json_schema({"type": "integer", "minimum": 3, "maximum": 2}), r"minimum \(3\) is greater than maximum"),
        (lambda: by_choices([]), "must be several texts"),
        (lambda: by_choices("yes"), "must be several texts"),
        (lambda: by_choices(["yes", ""]), "none of them empty"),
        (lambda: constrain(by_regex(r"[^\s\S]"), small_tokenizer([])), "no token of the vocabulary leads on towards"),
        (lambda: constrain(by_regex("a"), None), "the model has no tokenizer, so nothing holds its text to a form"),
        (lambda: constrain(by_regex("x+"), small_tokenizer([])), "no token of the vocabulary leads on towards"),
        (lambda: constrain(by_regex("a"), small_tokenizer([])).advance(0), "token 0 is not allowed here"),
        (lambda: constrain(by_regex("a"), small_tokenizer([])).advance(-1), "token -1 is not allowed here"),
        (
            lambda: constrain(by_regex("a"), trained()).advance(trained().eos),
            "is not allowed here: the text would leave",
        ),
    ],
)
def test_what_cannot_be_held_to_is_refused_with_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_form_that_the_library_gives_up_on_is_told_with_its_words():
    said = "too many states: 250001 > 250000\n<state>\n…\n</state>"
    matcher = types.SimpleNamespace(compute_bitmask=lambda: bytes(2), is_error=lambda: True, get_error=lambda: said)
    constraint = Constraint(by_regex(".*"), small_tokenizer([]), 9, frozenset(), matcher)
    with pytest.raises(
        ValueError, match=r"llguidance gave up on the regular expression '\.\*': too many states: 250001 > 250000\.$"
    ):
        constraint.allowed()


def test_without_the_library_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match=r"needs llguidance; pip install 'refllm\[constrained\]'"):
        by_regex("a")
