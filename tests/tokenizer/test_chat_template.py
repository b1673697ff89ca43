"""Rendering of conversations: the text is that of transformers' apply_chat_template, and strangers' programs do no harm."""

import builtins
import json
import sys
from datetime import datetime
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import chat_template
from refllm.tokenizer.chat_template import choose, read, render, special_tokens

TEMPLATES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))}
CHATML, GEMMA = TEMPLATES["chatml"], TEMPLATES["gemma"]
HELLO = [{"role": "user", "content": "Hello!"}]
contents = st.text(max_size=8) | st.sampled_from(
    ["<|im_end|>", " {{ 1 }} ", "\n\n", "{% raw %}", "</think>\nyes", "<&'\">", "é🌍"]
)


@st.composite
def conversations(draw):
    """A system message or none, then turns of user and assistant, the last of either."""
    messages = [{"role": "system", "content": draw(contents)}] if draw(st.booleans()) else []
    for i in range(draw(st.integers(1, 4))):
        message = {"role": ("user", "assistant")[i % 2], "content": draw(contents)}
        if i % 2 and draw(st.booleans()):
            message[draw(st.sampled_from(["reasoning_content", "thinking", "reasoning"]))] = draw(st.none() | contents)
        if draw(st.booleans()):
            message["tool_calls"] = draw(st.none() | st.just([{"name": "f<", "arguments": {"a": [1, 2.5, None, True, "ü"]}}]))
        messages.append(message)
    return messages


@pytest.fixture(scope="module")
def apply():
    """transformers' apply_chat_template, as text."""
    import tokenizers
    import transformers

    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")

    def applied(messages, template, add_generation_prompt, **others):
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=add_generation_prompt, tokenize=False, **others
        )

    return applied


def outcome(act, error):
    """What an act gives and None, or no text and the words of its error."""
    try:
        return act(), None
    except error as refusal:
        return "", str(refusal)


@pytest.mark.oracle
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_that_of_transformers_or_both_refuse(name, apply):
    import jinja2

    @given(conversations(), st.booleans())
    def the_same(messages, add_generation_prompt):
        ours, refused = outcome(
            lambda: render(messages, TEMPLATES[name], add_generation_prompt, bos_token="<s>", eos_token="</s>"), ValueError
        )
        expected, error = outcome(lambda: apply(messages, TEMPLATES[name], add_generation_prompt), jinja2.TemplateError)
        assert refused == (error and f"the chat template refuses this conversation: {error}")
        assert ours.encode("utf-8", "surrogatepass") == expected.encode("utf-8", "surrogatepass")

    the_same()


@pytest.mark.oracle
@pytest.mark.parametrize(
    "template",
    [
        "{{ {'ü': '<&>', 'b': [1, none]} | tojson }}|{{ messages | tojson(indent=1, sort_keys=true, ensure_ascii=true) }}",
        "{{ messages[0] | tojson(separators=(',', ':')) }}",
        "{% set ns = namespace(a=1, self=2) %}{% set ns.a = ns.a + ns.self %}{{ ns.a }}{{ namespace({'x': 5}).x }}",
        "{{ dict(a=1, **{'b': 2}) }}{{ dict.fromkeys('ab', 0) }}{{ dict.items is defined }}{{ missing }}{{ missing is defined }}",
        "a\n  {% if true %}\nb\n  {% endif %}\nc {{- ' d' }}\n\n",
        "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% elif x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}\n{% endgeneration %}\n{{ x }}",
        "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller is defined }}{% endmacro %}{{ f(messages[0].content) }}",
        "{{ tools | tojson }}{{ documents }}{{ extra }}{{ add_generation_prompt }}{{ bos_token }}{{ unk_token }}",
    ],
)
def test_what_templates_are_given_is_what_transformers_gives(template, apply):
    others = {"tools": [{"name": "f", "about": "<a> & 'b'"}], "documents": [{"title": "t", "text": "u"}], "extra": "e"}
    ours = render(HELLO, template, True, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **others)
    assert ours == apply(HELLO, template, True, **others)


@pytest.mark.oracle
@pytest.mark.parametrize("names", [("reasoning_content",), ("thinking",), ("reasoning",), ("thinking", "reasoning"), ("other",)])
def test_what_a_model_thought_goes_by_the_names_that_templates_read(names, apply):
    template = (
        "{{ messages[0].thinking }}|{{ messages[0].reasoning_content }}|{{ messages[0].reasoning }}|{{ messages[0].other }}"
    )
    messages = [{"role": "assistant", "content": "x", **{name: f"by {name}" for name in names}}]
    ours = render(messages, template)
    assert ours == apply(messages, template, False)
    assert names == ("other",) or ours.count(f"by {names[0]}") >= 2


def test_chatml_is_written_out():
    assert render(HELLO, CHATML, True) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_may_ask_for_the_day():
    moment = datetime(2024, 7, 26)
    assert render(HELLO, "{{ strftime_now('%d %b %Y') }}", now=moment) == "26 Jul 2024"
    assert render(HELLO, "{{ strftime_now('%Y') }}") == str(datetime.now().year)


def test_messages_are_told_as_plain_data():
    class Role(str, Enum):  # noqa: UP042 -- of a StrEnum, str() is the text itself
        user = "someone"

    class Text(str):
        def __str__(self):
            return "something else"

    class Number(float):
        def __repr__(self):
            return "another number"

    message = {"role": Role.user, "content": Text("what it is"), "n": Number(2.5), "list": ({"a": True},), "none": None}
    assert (
        render([message], "{{ messages }}") == "[{'role': 'someone', 'content': 'what it is', 'n': 2.5, 'list': [{'a': True}]}]"
    )
    with pytest.raises(TypeError, match="a message holds object; chat templates take texts"):
        render([{"role": "user", "content": object()}], CHATML)
    with pytest.raises(TypeError, match="a message is str; it must be a dict"):
        render(["Hello"], CHATML)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ dict.__class__ }}{{ dict.__call__.__globals__ }}",
        "{{ dict.mro() }}",
        "{{ strftime_now.__self__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10 ** 9) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    messages = [dict(HELLO[0])]
    try:
        said = render(messages, template)
    except ValueError as error:
        said = str(error)
        assert said.startswith("the chat template refuses this conversation: ")
    assert "<class" not in said
    assert "datetime" not in said
    assert messages == HELLO


@pytest.mark.parametrize("template", ["{% set ns = namespace() %}{% set ns._x = 1 %}", "{{ namespace(_x=1) }}"])
def test_a_namespace_holds_no_name_through_which_python_could_be_reached(template):
    with pytest.raises(ValueError, match="a namespace cannot hold '_x'"):
        render(HELLO, template)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('no system role here') }}", "refuses this conversation: no system role here"),
        ("{{ messages[0]['content'] + 1 }}", "refuses this conversation: can only concatenate str"),
        ("{{ messages[3].role }}", "refuses this conversation: list object has no element 3"),
        ("{{ 1 / 0 }}", "refuses this conversation: division by zero"),
        ("a\n{% for %}", r"is no Jinja program: .* \(line 2\)"),
        ("{% nonsense %}", "is no Jinja program: Encountered unknown tag 'nonsense'"),
        ("{{ messages | nonsense }}", "is no Jinja program: No filter named 'nonsense'"),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence(template, says):
    with pytest.raises(ValueError, match=f"the chat template {says}"):
        render(HELLO, template)


def test_an_empty_conversation_is_refused():
    with pytest.raises(ValueError, match="the conversation is empty"):
        render([], CHATML)


def test_without_jinja2_one_sentence_says_how_to_get_it(monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == "jinja2":
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        return plain(name, *arguments)

    chat_template._compiled.cache_clear()
    for name in [n for n in sys.modules if n.startswith(("jinja2", "refllm.tokenizer.chat_sandbox"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("refllm.tokenizer.chat_sandbox", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=r"need the package jinja2, 3.1.6 or later; install it with `pip install 'refllm\[chat\]'"
    ):
        render(HELLO, CHATML)


# Files


def written(folder, **fields):
    (folder / "tokenizer_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_a_template_is_read_from_the_tokenizers_configuration(tmp_path):
    assert read(written(tmp_path, chat_template=CHATML)) == {"default": CHATML}
    assert choose(read(tmp_path)) == CHATML


def test_several_templates_go_by_their_names(tmp_path):
    several = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": GEMMA}]
    found = read(written(tmp_path, chat_template=several))
    assert (choose(found), choose(found, "tool_use")) == (CHATML, GEMMA)
    with pytest.raises(ValueError, match="the model has no chat template 'rag'; choose one of default, tool_use"):
        choose(found, "rag")
    with pytest.raises(ValueError, match="the model has no default among its chat templates; choose one of a, b"):
        choose({"a": CHATML, "b": GEMMA})
    assert choose({"only": GEMMA}) == GEMMA


def test_files_of_their_own_come_before_the_configuration(tmp_path):
    written(tmp_path, chat_template="old")
    (tmp_path / "chat_template.jinja").write_bytes(b"new\r\n{{ 1 }}")
    assert read(tmp_path) == {"default": "new\n{{ 1 }}"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(GEMMA)
    assert read(tmp_path) == {"default": "new\n{{ 1 }}", "tool_use": GEMMA}


@pytest.mark.oracle
def test_what_transformers_saves_is_read(tmp_path):
    import tokenizers
    import transformers

    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>")
    theirs.chat_template = {"default": CHATML, "rag": GEMMA}
    for i, as_files in enumerate([True, False]):
        folder = tmp_path / str(i)
        theirs.save_pretrained(folder, save_jinja_files=as_files)
        assert read(folder) == {"default": CHATML, "rag": GEMMA}
        assert special_tokens(folder) == {"bos_token": "<s>", "eos_token": "</s>"}


def test_a_folder_without_template_has_none_and_says_so(tmp_path):
    assert read(tmp_path) == read(written(tmp_path, chat_template=None)) == read(written(tmp_path)) == {}
    with pytest.raises(ValueError, match="the model has no chat template; name a file"):
        choose({})


@pytest.mark.parametrize("given", [7, [{"name": "a"}], ["a"], {"a": 1}, [{"name": "a", "template": 3}]])
def test_a_template_that_is_no_text_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match="has a chat_template that is neither a text nor a list"):
        read(written(tmp_path, chat_template=given))


def test_special_tokens_are_read_in_both_spellings(tmp_path):
    written(tmp_path, bos_token={"content": "<s>", "lstrip": False}, eos_token=None, unk_token=["?"])
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "older", "eos_token": "</s>"}))
    assert special_tokens(tmp_path) == {"bos_token": "<s>", "eos_token": "</s>"}
    assert special_tokens(tmp_path / "elsewhere") == {}
