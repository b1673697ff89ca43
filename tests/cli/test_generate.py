"""`refllm generate`: prompts from everywhere, texts and JSON, the ways of writing, and what is refused."""

import importlib
import io
import json
import re
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from refllm import checkpoints
from refllm.cli import model_file
from refllm.cli.asked import answers_to
from refllm.cli.generate_options import EXCLUDED, NEEDED, PANELS, check_together
from refllm.cli.option_table import flag
from refllm.cli.prompts import Prompt
from refllm.decoding import Sampler, generate
from refllm.decoding.text import continue_text, encode_prompt
from refllm.models import llama
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

CONTEXT = 64
WORDS = "the cat sat on the mat and a dog ran under a tree near the mat. "
PROMPT = "the cat\nsat"
SHORT = ["--max-tokens", 6]
GREEDY = ["--temperature", 0, *SHORT]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small model that has learned nothing."""
    tokenizer = train_bpe(WORDS * 5, 290, special_tokens=["<|end|>"])
    config = llama.Config(tokenizer.vocab_size, 16, 1, 2, 2, 8, 24, max_positions=CONTEXT)
    model = Model.initialise("llama", config, 3, "numpy", tokenizer)
    params = {n: p if "norm" in n else 10 * p for n, p in model.params.items()}
    folder = tmp_path_factory.mktemp("generate") / "a model [bold]"
    checkpoints.save(folder, Model(model.architecture, config, params, tokenizer))
    return folder


@pytest.fixture
def run(refllm, folder, monkeypatch):
    """A function that runs the command on the model, with a text in a pipe if there is one."""

    def call(*arguments, pipe=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pipe.encode("utf-8", "surrogateescape"))))
        return refllm("generate", folder, *arguments)

    return call


@pytest.fixture(scope="session")
def model(folder):
    return checkpoints.load(folder)


def text_of(model, prompt, n_tokens=6, sampler=None, seed=0):
    """The text that follows a prompt, by the library."""
    return "".join(piece.text for piece in continue_text(model, prompt, n_tokens, sampler or Sampler(0.8, top_p=0.95), seed))


def objects(result):
    assert result.status == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


# Where prompts come from


def test_a_prompt_comes_as_an_argument_in_a_file_or_through_a_pipe(run, model, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text(f"{PROMPT}\n", encoding="utf-8")
    expected = f"{PROMPT}{text_of(model, PROMPT)}\n"
    assert run(PROMPT, *SHORT).out == expected
    assert run("--file", path, *SHORT).out == expected, "the newline with which a file ends is none of the prompt's"
    assert run(*SHORT, pipe=f"{PROMPT}\n").out == expected
    assert run("-", *SHORT, pipe=PROMPT).out == expected


def test_prompts_may_stand_a_line_each(run, model, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("the cat\r\n\na dog\n", encoding="utf-8")
    expected = [("the cat", text_of(model, "the cat")), ("a dog", text_of(model, "a dog"))]
    for found in (run("--lines", "--file", path, "--json", *SHORT), run("--lines", "--json", *SHORT, pipe=path.read_text())):
        assert [(o["prompt"], o["text"]) for o in objects(found)] == expected


def test_arguments_come_before_files(run, tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(f"{name} file")
    files = ["--file", tmp_path / "b", "--file", tmp_path / "a"]
    found = objects(run("the cat", "a dog", *files, "--json", "--max-tokens", 1))
    assert [o["prompt"] for o in found] == ["the cat", "a dog", "b file", "a file"]


def test_lines_of_json_set_options_of_their_own(run, model, tmp_path):
    lines = [
        {"prompt": "the cat", "id": {"any": "thing"}, "seed": 4, "max_tokens": 3},
        {"prompt": "a dog", "temperature": 0, "top_k": None, "logit_bias": {"5": 1.5}},
        {"prompt": "a dog", "n": 2, "repetition_penalty": 2, "logprobs": 1, "stop": "zzz"},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    found = objects(run("--file", path, "--seed", 1, "--max-tokens", 5))
    assert found == objects_without_times(run("--jsonl", "--seed", 1, "--max-tokens", 5, pipe=path.read_text()), found)
    top_p = {"top_p": 0.95}
    assert [o["text"] for o in found[:2]] == [
        text_of(model, "the cat", 3, seed=4),
        text_of(model, "a dog", 5, Sampler(0.0, **top_p, logit_bias={5: 1.5}), 1),
    ]
    assert found[0]["id"] == {"any": "thing"}
    assert "id" not in found[1]
    rows = list(generate(model, [encode_prompt(model, "a dog")] * 2, 5, Sampler(0.8, **top_p, repetition_penalty=2.0), 1))
    assert [o["tokens"] for o in found[2:]] == [[int(step.tokens[b]) for step in rows] for b in (0, 1)]
    assert [(o["sample"], len(o["logprobs"])) for o in found[2:]] == [(0, 5), (1, 5)]


def objects_without_times(result, like):
    """The objects of a result, with the seconds of others, which no two runs share."""
    return [o | {"seconds": other["seconds"]} for o, other in zip(objects(result), like, strict=True)]


# What comes out


def test_a_text_stands_behind_its_prompt_and_its_times_on_stderr(run, model):
    result = run("the cat", *SHORT)
    assert result.out == f"the cat{text_of(model, 'the cat')}\n"
    assert "first token after" in result.err
    assert "decode   5 tokens" in result.err
    assert run("the cat", "--no-echo", *SHORT).out == f"{text_of(model, 'the cat')}\n"


def test_texts_of_many_prompts_come_in_their_order_whenever_they_end(run, model):
    prompts, lengths = ["the cat", "a dog", "the mat", "a tree"], [9, 1, 4, 2]
    lines = "\n".join(json.dumps({"prompt": p, "max_tokens": n}) for p, n in zip(prompts, lengths, strict=True))
    for rows in (1, 2, 8):
        found = objects(run("--jsonl", "--rows", rows, pipe=lines))
        assert [(o["prompt"], o["text"]) for o in found] == [
            (p, text_of(model, p, n)) for p, n in zip(prompts, lengths, strict=True)
        ]
    plain = run(*prompts, "--rows", 2, *SHORT)
    assert plain.out == "\n".join(f"{p}{text_of(model, p)}\n" for p in prompts)
    assert "texts    4 in" in plain.err
    assert "24 tokens" in plain.err


def test_samples_are_the_rows_of_one_seed(run, model):
    found = objects(run("the cat", "--n", 3, "--seed", 5, "--json", *SHORT))
    steps = list(generate(model, [encode_prompt(model, "the cat")] * 3, 6, Sampler(0.8, top_p=0.95), 5))
    assert [o["tokens"] for o in found] == [[int(step.tokens[b]) for step in steps] for b in range(3)]
    assert [o["sample"] for o in found] == [0, 1, 2]
    assert len({o["text"] for o in found}) == 3


def test_samples_share_what_is_read_of_their_prompt(run, model, monkeypatch):
    served, read = importlib.import_module("refllm.decoding.serve"), []
    plain = served.prefill
    monkeypatch.setattr(served, "prefill", lambda *given: read.append(given[1].shape[1]) or plain(*given))
    alone, n = [objects(run("the cat sat", "--json", *SHORT))[0]["tokens"]], len(encode_prompt(model, "the cat sat"))
    found = objects(run("the cat sat", "--n", 3, "--json", *SHORT))
    assert read == [n, n, 1, 1]
    assert found[0]["tokens"] == alone[0]


def test_an_object_tells_the_tokens_and_why_they_ended(run, model):
    (found,) = objects(run("the cat", "--json", *GREEDY))
    assert list(found) == ["prompt", "sample", "text", "tokens", "finish", "seconds"]
    assert (found["finish"], len(found["tokens"])) == ("length", 6)
    assert found["text"] == text_of(model, "the cat", 6, Sampler(0.0))
    assert found["seconds"] > 0
    end = found["text"][2:4]
    (stopped,) = objects(run("the cat", "--json", *GREEDY, "--stop", "no such text", "--stop", end))
    assert (stopped["finish"], stopped["text"]) == ("stop", found["text"][: found["text"].index(end)])


def test_log_probabilities_are_those_of_the_model(run, model):
    (found,) = objects(run("the cat", "--json", *GREEDY, "--logprobs", 2))
    ids = encode_prompt(model, "the cat")
    logits = np.asarray(model.logits([ids + found["tokens"]]))[0, len(ids) - 1 : -1].astype(np.float64)
    expected = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    for told, token, row in zip(found["logprobs"], found["tokens"], expected, strict=True):
        assert told["token"] == token == told["likeliest"][0]["token"]
        assert told["text"] == model.tokenizer.tokens([token])[0].decode("utf-8", "replace")
        assert [o["token"] for o in told["likeliest"]] == np.argsort(-row, kind="stable")[:2].tolist()
        np.testing.assert_allclose([told["logprob"], told["likeliest"][1]["logprob"]], np.sort(row)[::-1][:2], atol=1e-5)


def test_every_option_of_the_sampler_arrives(run, monkeypatch):
    from refllm.cli import asked

    seen = []
    monkeypatch.setattr(asked, "Request", lambda *given, **named: seen.append((given[2], named)) or Request(*given, **named))
    from refllm.decoding.request import Request

    settings = {"temperature": 0.5, "top_k": 9, "top_p": 0.7, "min_p": 0.1, "typical_p": 0.9, "epsilon": 0.01, "eta": 0.02}
    settings |= {"repetition_penalty": 1.2, "presence_penalty": 0.1, "frequency_penalty": 0.2, "no_repeat_ngram": 3}
    options = [word for name, value in settings.items() for word in (flag(name), value)]
    assert run("the cat", *options, "--logit-bias", "5=1.5", "--logit-bias", "7=-inf", *SHORT).status == 0
    assert seen[-1][0] == Sampler(**settings, logit_bias={5: 1.5, 7: float("-inf")})
    assert run("the cat", "--mirostat", 4, "--mirostat-eta", 0.3, *SHORT).status == 0
    assert seen[-1][0] == Sampler(0.8, mirostat=(4.0, 0.3))
    assert run("the cat", "--draws", "llama2.c", "--seed", 7, "--top-p", 0.9, *SHORT).status == 0
    assert seen[-1][0] == Sampler(0.8, top_p=0.9, draws="llama2.c")
    assert seen[-1][1]["seed"] == 7
    missing = {field.name for field in fields(Sampler)} - {*settings, "logit_bias", "mirostat", "draws"}
    assert not missing, "options that this test does not know"


def test_a_text_ends_where_the_model_ends_the_document(refllm, finished_run):
    end = checkpoints.load(finished_run).tokenizer.eos
    (found,) = objects(refllm("generate", finished_run, "the cat", "--json", "--logit-bias", f"{end}=99"))
    assert (found["finish"], found["text"], found["tokens"]) == ("end", "", [end])


def test_a_text_of_llama2_c_ends_where_the_next_begins_too(data):
    story = model_file.open_model(str(data / "stories260K.bin"), "numpy", None, str(data / "tok512.bin"))
    ends = [
        set(answers_to([Prompt("Once")], story, given)[0].request.stop_tokens) for given in ({}, {"draws": "llama2.c", "seed": 1})
    ]
    assert ends == [{story.tokenizer.eos}, {story.tokenizer.eos, story.tokenizer.bos}]


def test_an_object_stands_on_one_line_for_every_reader(run):
    result = run("a\u2028b\u2029c\x85d", "--json", *SHORT)
    assert len(result.out.splitlines()) == 1
    assert json.loads(result.out)["prompt"] == "a\u2028b\u2029c\x85d"


# Ways of writing


def test_keys_and_values_in_eight_bits_are_served(run, monkeypatch):
    from refllm.cli import ways

    seen, plain = [], ways.serve
    monkeypatch.setattr(
        ways, "serve", lambda *given, **named: seen.append((given[2], named["quantised"])) or plain(*given, **named)
    )
    assert run("the cat", "--int8-cache", *GREEDY).status == run("the cat", "a dog", *GREEDY).status == 0
    assert seen == [(1, True), (2, False)], "with no more rows than texts"


def test_beams_find_the_texts_that_the_search_finds(run, model):
    from refllm.decoding.beam_search import Beams, beam_search

    asked = ["--beams", 4, "--groups", 2, "--diversity", 0.5, "--length-penalty", 0.7]
    found = objects(run("the cat", "a dog", *asked, "--n", 2, "--json", *SHORT))
    beams = Beams(4, 0.7, groups=2, diversity=0.5, n_best=2)
    expected = [beam_search(model, encode_prompt(model, prompt), 6, beams) for prompt in ("the cat", "a dog")]
    assert [tuple(o["tokens"]) for o in found] == [text.tokens for texts in expected for text in texts]
    result = run("the cat", *asked, *SHORT)
    assert result.out == f"the cat{found[0]['text']}\n"
    assert "texts    1 in" in result.err
    assert "first token" not in result.err, "a search has none"


def test_contrastive_search_writes_what_it_chooses(run, model):
    from refllm.decoding.contrastive_search import Contrast, contrastive_search

    found = objects(run("the cat", "a dog", "--contrastive-k", 4, "--alpha", 0.3, "--json", *SHORT))
    for o in found:
        choices = contrastive_search(model, encode_prompt(model, o["prompt"]), 6, Contrast(4, 0.3))
        assert o["tokens"] == [choice.token for choice in choices]


@pytest.mark.parametrize("drafted", [["--lookup", 2, "--proposals", 3], ["--draft", "itself"]])
def test_drafts_change_no_greedy_text_and_are_counted(run, folder, model, drafted):
    drafted = [folder if word == "itself" else word for word in drafted]
    (found,) = objects(run("the cat sat on the cat sat", *drafted, "--temperature", 0, "--max-tokens", 12, "--json", "--stats"))
    assert found["text"] == text_of(model, "the cat sat on the cat sat", 12, Sampler(0.0))
    drafts = found["stats"]["drafts"]
    assert 0 <= drafts["accepted"] <= drafts["proposed"]
    if "--draft" in drafted:
        assert drafts["accepted"] == drafts["proposed"] > 0
    assert "proposed tokens accepted" in run("the cat the cat", *drafted, "--max-tokens", 12).err


def test_a_text_keeps_to_its_form(run, tmp_path):
    pytest.importorskip("llguidance", reason="llguidance holds texts to a form: pip install llguidance")
    (tmp_path / "schema.json").write_text('{"type": "integer", "minimum": 10, "maximum": 99}')
    (number,) = objects(run("the cat", "--json-schema", tmp_path / "schema.json", "--json", *SHORT))
    assert 10 <= int(number["text"]) <= 99
    assert run("the cat", "--no-echo", "--regex", "(ab)+", "--max-tokens", 20).out.replace("ab", "") in ("\n", "a\n")
    assert run("the cat", "--no-echo", "--choices", "mat", "--choices", "tree", "--max-tokens", 20).out in ("mat\n", "tree\n")
    line = json.dumps({"prompt": "the cat", "json_schema": {"const": "x"}, "n": 2})
    assert [o["text"] for o in objects(run("--jsonl", "--max-tokens", 20, pipe=line))] == ['"x"', '"x"']


# Long prompts


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers_or_cut(run, model):
    prompt = "the cat sat " * 30
    n = len(encode_prompt(model, prompt))
    refused = run(prompt, *SHORT)
    refused.refused(
        f"the prompt has {n} tokens, and 6 more do not fit the model's context of {CONTEXT}", "let overflow keep its end"
    )
    ids = encode_prompt(model, prompt)
    for way, kept in (("keep-end", ids[n - CONTEXT + 6 :]), ("keep-start", ids[: CONTEXT - 6])):
        (found,) = objects(run(prompt, "--overflow", way, "--json", *GREEDY))
        steps = generate(model, kept, 6, Sampler(0.0), 0)
        assert found["tokens"] == [int(step.tokens[0]) for step in steps], way
    (found,) = objects(run(prompt, "--overflow", "keep-end", "--json"))
    assert (found["finish"], len(found["tokens"])) == ("length", CONTEXT // 2), (
        "half of the context, where no number is asked for"
    )
    run("the cat", "--overflow", "wrap").refused("'wrap'")


def test_of_a_long_prompt_the_token_that_begins_a_document_stays(data):
    story = model_file.open_model(str(data / "stories260K.bin"), "numpy", None, str(data / "tok512.bin"))
    (answer,) = answers_to([Prompt("a long story " * 500)], story, {"overflow": "keep-end", "max_tokens": 9})
    ids = encode_prompt(story, "a long story " * 500)
    assert list(answer.request.prompt) == [story.tokenizer.bos, *ids[len(ids) - (512 - 9) + 1 :]]


def test_a_text_without_a_length_fills_the_context(run, model):
    (found,) = objects(run("the cat", "--json"))
    assert len(found["tokens"]) == CONTEXT - len(encode_prompt(model, "the cat"))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([""], "the prompt is empty"),
        (["the cat", "--top-p", 0], "top_p=0.0 is not a probability to reach; it must be above 0 and at most 1"),
        (["the cat", "--top-p", 1.5], "top_p=1.5 is not a probability to reach; it must be above 0 and at most 1"),
        (["the cat", "--temperature", "nan"], "temperature=nan"),
        (["the cat", "--stop", ""], "a stop string is empty"),
        (["the cat", "--n", 0], "n=0 asks for no text"),
        (["the cat", "--rows", 0], "rows=0 leaves no place"),
        (["the cat", "--logprobs", 2], "--logprobs are written as JSON; add --json"),
        (["the cat", "--file", "no such file"], "no such file: no such file or directory"),
        (["the cat", "--draft", "no such model"], "no such model"),
        (["the cat", "--draws", "dice"], "draws='dice' names no generator"),
        (["the cat", "--draws", "llama2.c"], "seed=0 cannot seed llama2.c's generator"),
        (["the cat", "--logit-bias", "5"], "a logit bias is a token's id and a number, such as 13=-1.5"),
        (["the cat", "--mirostat-eta", 0.1], "give that with --mirostat"),
        (["the cat", "--beams", 0], "n=0 beams"),
        (["the cat", "--beams", 2, "--n", 3], "n_best=3 texts cannot come of n=2 beams"),
        (["the cat", "--regex", "["], "the regular expression '['"),
        (["the cat", "--json-schema", "no such file"], "no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(run, arguments, says):
    result = run(*arguments, *([] if "--beams" in arguments else SHORT))
    result.refused(says)
    assert result.out == ""


def test_the_help_has_every_option_under_its_heading_in_80_columns(refllm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = refllm("generate", "--help").out
    assert max(map(len, told.splitlines())) <= 80
    parts = re.split(r"╭─ ([A-Z]\w+) ─", told)
    panels = dict(zip(parts[1::2], parts[2::2], strict=True))
    for heading, table in PANELS:
        for name, option in table.items():
            assert f"│ {flag(name)} " in panels[heading]
            assert (
                option.default is None
                or option.default is True
                or f"(default: {option.default})" in " ".join(panels[heading].split())
            )


@pytest.mark.parametrize("name", EXCLUDED)
def test_options_that_exclude_one_another_say_so(run, name):
    run("the cat", *given(name), *given(EXCLUDED[name][0])).refused(flag(name), "excludes", flag(EXCLUDED[name][0]))
    for other in EXCLUDED[name]:
        with pytest.raises(ValueError, match=f"excludes {flag(other)}"):
            check_together({name: 2, other: 2})


@pytest.mark.parametrize("name", NEEDED)
def test_options_that_belong_to_others_ask_for_them(run, name):
    run("the cat", *given(name)).refused(f"{flag(name)} belongs to {' or '.join(map(flag, NEEDED[name]))}")


def given(name):
    """An option with a value that its type allows."""
    wanted = next(table[name].type for _, table in PANELS if name in table)
    return [flag(name)] if wanted is bool else [flag(name), 2]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON: expecting property name enclosed in double quotes (column 2)."),
        ('"the cat"', 'has no prompt; a line is an object such as {"prompt"'),
        ('{"text": "the cat"}', "has no prompt"),
        ('{"prompt": 3}', "has no prompt"),
        ('{"prompt": "the cat", "top": 3}', "'top' is not known; a line has prompt, id and temperature, top_k"),
        ('{"prompt": "the cat", "top_k": 2.5}', "top_k is 2.5; it must be a whole number"),
        ('{"prompt": "the cat", "top_k": true}', "top_k is True; it must be a whole number"),
        ('{"prompt": "the cat", "stop": ["a", 3]}', "it must be a text, or a list of them"),
        ('{"prompt": "the cat", "top_p": 3}', "top_p=3.0 is not a probability"),
        ('{"prompt": "the cat", "logit_bias": {"x": 3}}', "a logit bias is a token's id and a number"),
        ('{"prompt": "the cat", "regex": "a", "choices": ["a"]}', "--regex excludes --choices"),
        ('{"prompt": ""}', "the prompt is empty"),
        ('{"prompt": "%s"}' % ("the cat " * 50), "do not fit the model's context"),
    ],
)
def test_a_bad_line_of_json_is_named_by_its_number_before_anything_is_written(run, line, says):
    result = run("--jsonl", *SHORT, pipe=f'{{"prompt": "the cat"}}\n\n{line}\n')
    result.refused("line 3 of standard input", says)
    assert result.out == ""


def test_a_file_without_prompts_and_one_that_is_no_text_are_refused(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    run("--file", tmp_path / "empty.jsonl").refused("there is no prompt in", "empty.jsonl")
    run("--lines", pipe="").refused("there is no prompt in standard input")
    run(pipe="").refused("the prompt is empty")
    run(pipe="the \udcff").refused("standard input is not UTF-8 text (byte 4)")


def test_logits_that_are_no_numbers_end_in_a_sentence_and_the_other_texts_are_written(run, model, monkeypatch):
    broken = model.tokenizer.encode("a dog")[-1]
    table = np.array(model.params["embedding"])
    table[broken] = np.nan
    damaged = replace(model, params={**model.params, "embedding": table})
    monkeypatch.setattr(checkpoints, "load", lambda *given: damaged)
    result = run("the cat", "a dog", "--json", *SHORT)
    assert result.status == 2
    assert "are not finite numbers" in result.err
    whole, wrong = map(json.loads, result.out.splitlines())
    assert (whole["finish"], len(whole["tokens"])) == ("length", 6)
    assert (wrong["finish"], wrong["text"], wrong["tokens"]) == ("error", "", [])
    assert "the logits of token 1 are not finite numbers" in wrong["error"]
    run("a dog", *SHORT).refused("the logits of token 1 are not finite numbers: the model's weights or activations overflow")
