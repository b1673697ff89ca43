"""What stands around a text, in a tokenizer.json."""

import json

import pytest

from refllm.tokenizer import AddedToken, Template, Tokenizer
from refllm.tokenizer.formats.hugging_face import to_document
from refllm.tokenizer.formats.hugging_face_post_processor import describe_post_processor, read_post_processor

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
ENDS = {"sep": ["</s>", 2], "cls": ["<s>", 1]}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "two", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
        "two": {"id": "two", "ids": [2, 3], "tokens": ["</s>", "x"]},
    },
}


@pytest.mark.parametrize(
    ("part", "before", "behind"),
    [
        (BYTE_LEVEL, (), ()),
        ({"type": "BertProcessing", **ENDS}, (1,), (2,)),
        ({"type": "RobertaProcessing", **ENDS, "trim_offsets": True, "add_prefix_space": True}, (1,), (2,)),
        (TEMPLATE, (1,), (2, 3)),
        ({"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]}, (1,), (2, 3)),
        (
            {"type": "Sequence", "processors": [{"type": "BertProcessing", "sep": ["x", 7], "cls": ["y", 6]}, TEMPLATE]},
            (1, 6),
            (7, 2, 3),
        ),
    ],
)
def test_the_part_says_what_stands_around_a_text_and_is_written_as_it_was_read(part, before, behind):
    template = read_post_processor(part)
    assert template == Template(before, behind, part)
    assert describe_post_processor(template, str) == part


def test_no_part_puts_nothing_around_a_text():
    assert read_post_processor(None) is None
    assert describe_post_processor(None, str) is None


def test_a_new_template_is_described_for_one_text_and_for_two():
    part = describe_post_processor(Template((1,), (2,)), {1: "<s>", 2: "</s>"}.__getitem__)
    assert read_post_processor(part) == Template((1,), (2,), part)
    assert [next(iter(piece.values()))["id"] for piece in part["pair"]] == ["<s>", "A", "</s>", "B", "</s>"]


@pytest.mark.oracle
def test_tokenizers_puts_the_same_around_a_text(trained, tmp_path):
    import tokenizers
    from transformers import AutoTokenizer

    added = [*trained.added, AddedToken(1024, "<s>", True), AddedToken(1025, "</s>", True)]
    for template in (None, Template((1024,), (1025,)), Template((1024, 1024), ())):
        ours = Tokenizer(trained.model, added, template=template)
        expected = ours.with_special_tokens(ours.encode("the text"))
        assert tokenizers.Tokenizer.from_str(json.dumps(to_document(ours))).encode("the text").ids == expected
        ours.save(tmp_path)
        assert AutoTokenizer.from_pretrained(tmp_path).encode("the text") == expected
        again = Tokenizer.load(tmp_path)
        assert again.with_special_tokens([5]) == ours.with_special_tokens([5])
        assert (again.bos, again.eos) == (ours.bos, ours.eos) == (1024, 1025)


@pytest.mark.oracle
def test_the_last_of_several_processors_stands_outermost(trained):
    import tokenizers

    added = [*trained.added, *(AddedToken(1024 + i, name, True) for i, name in enumerate(["<s>", "</s>", "[CLS]", "[SEP]"]))]
    inner = {"type": "BertProcessing", "sep": ["[SEP]", 1027], "cls": ["[CLS]", 1026]}
    outer = describe_post_processor(Template((1024,), (1025,)), {token.id: token.content for token in added}.__getitem__)
    ours = Tokenizer(trained.model, added, template=read_post_processor({"type": "Sequence", "processors": [inner, outer]}))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_document(ours)))
    assert theirs.encode("the text").ids == ours.with_special_tokens(ours.encode("the text"))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing"])
def test_the_ends_of_bert_and_roberta_stand_where_tokenizers_puts_them(trained, kind):
    import tokenizers

    added = [*trained.added, AddedToken(1024, "<s>", True), AddedToken(1025, "</s>", True)]
    part = {"type": kind, "sep": ["</s>", 1025], "cls": ["<s>", 1024]}
    part |= {"trim_offsets": True, "add_prefix_space": False} if kind == "RobertaProcessing" else {}
    ours = Tokenizer(trained.model, added, template=read_post_processor(part))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_document(ours)))
    assert theirs.encode("the text").ids == ours.with_special_tokens(ours.encode("the text"))
