"""`refllm chat`: piped, typed, stopped and refused."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refllm import checkpoints
from refllm.models import llama
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

CHATML = (Path(__file__).parents[1] / "tokenizer" / "chat_templates" / "chatml.jinja").read_text()
GREEDY = ["--temperature", "0", "--max-tokens", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small chat model that has learned nothing."""
    folder = tmp_path_factory.mktemp("chat") / "a model [bold]"
    tokenizer = train_bpe("user system assistant\nYou help. Hello " * 3, 280, special_tokens=["<|im_start|>", "<|im_end|>"])
    config = llama.Config(tokenizer.vocab_size, 16, 1, 2, 2, 8, 24, max_positions=200)
    model = Model.initialise("llama", config, 3, "numpy", tokenizer)
    checkpoints.save(folder, Model(model.architecture, config, {n: p * 20 for n, p in model.params.items()}, tokenizer))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    return folder


@pytest.fixture
def piped(refllm, monkeypatch):
    """A function that runs the command with lines in a pipe."""

    def run(lines, *arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode("utf-8", "surrogateescape"))))
        return refllm("chat", *arguments)

    return run


def test_each_line_of_a_pipe_is_answered_on_stdout_and_nothing_else_is_there(piped, folder):
    from refllm.decoding import Sampler
    from refllm.decoding.chat import Conversation
    from refllm.tokenizer.chat_encoder import ChatEncoder

    result = piped("Hello\n\nYou help.\n", folder, *GREEDY)
    assert (result.status, result.err) == (0, "")
    model = checkpoints.load(folder)
    encoder = ChatEncoder(model.tokenizer, CHATML)
    talk = Conversation(model, encoder, Sampler(0.0), 0, {encoder.end_of_turn()}, max_tokens=8)
    said = ["".join(piece.text for piece in talk.answer(message)) for message in ("Hello", "You help.")]
    assert result.out == "".join(f"{text}\n" for text in said)
    assert said[0] != said[1]


def test_a_reset_begins_a_conversation_in_which_the_first_answer_comes_again(piped, folder):
    once, twice = piped("Hello\n", folder, *GREEDY).out, piped("Hello\n/reset\nHello\n", folder, *GREEDY).out
    assert twice == once * 2
    assert piped("Hello\nHello\n", folder, *GREEDY).out != twice
    assert piped("Hello\n/exit\nHello\n", folder, *GREEDY).out == once


def test_settings_change_the_answer(piped, folder, tmp_path):
    (tmp_path / "other.jinja").write_text("{{ messages[0].content }}<|im_end|>")
    plain = piped("Hello\n", folder, *GREEDY).out
    assert piped("Hello\n", folder, *GREEDY, "--system", "user user").out != plain
    assert piped("Hello\n", folder, *GREEDY, "--template", tmp_path / "other.jinja").out != plain
    assert len(set(piped("Hello\n", folder, *GREEDY, "--logit-bias", "40=99999").out.strip())) == 1, "one token again and again"
    drawn = {piped("Hello\n", folder, "--temperature", "5", "--max-tokens", "8", "--seed", seed).out for seed in range(3)}
    assert len(drawn) > 1


def test_an_answer_ends_where_the_template_ends_it_or_the_checkpoint_does(folder, tmp_path):
    from refllm.cli.chat import open_conversation
    from refllm.decoding import Sampler

    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    talk = open_conversation(tmp_path, None, Sampler(0.0), 0, None, None, None)
    assert talk.ends == {5, 7, talk.model.tokenizer.id_of("<|im_end|>")}


def test_named_templates_are_chosen_by_name(piped, folder, tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    (tmp_path / "additional_chat_templates" / "curt.jinja").write_text("{{ messages[0].content }}")
    plain = piped("Hello\n", tmp_path, *GREEDY).out
    assert plain == piped("Hello\n", folder, *GREEDY).out
    assert piped("Hello\n", tmp_path, *GREEDY, "--template", "curt").out != plain
    refused = piped("Hello\n", tmp_path, *GREEDY, "--template", "rude")
    assert refused.status == 2
    assert "the model has no chat template 'rude'; choose one of curt, default" in refused.err


def test_ctrl_c_stops_an_answer_and_not_the_program(piped, folder, monkeypatch):
    from refllm.decoding import chat

    plain, calls = chat.prefill, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(chat, "prefill", stopping)
    result = piped("Hello\nHello\n", folder, *GREEDY)
    assert result.status == 0
    first, second = result.out.splitlines()[0], result.out.splitlines()[-1]
    assert result.out.count("[stopped]") == 1
    assert first
    assert second
    assert len(calls) > 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--temperature", "-1"], "temperature=-1.0 cannot be"),
        (["--max-tokens", "0"], "max_tokens=0 asks for no token"),
        (["--backend", "tpu"], "'tpu' is not a backend"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(piped, folder, arguments, says):
    result = piped("Hello\n", folder, *arguments)
    assert (result.status, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_checkpoint_that_cannot_chat_says_why(piped, finished_run, data, tmp_path):
    result = piped("Hello\n", finished_run)
    assert result.status == 2
    assert "has no chat template; give one with --template FILE, or continue text with refllm generate" in result.err
    (tmp_path / "stories.bin").symlink_to(data / "stories260K.bin")
    assert "has no tokenizer, and a conversation is text" in piped("Hello\n", tmp_path / "stories.bin").err
    assert "does not exist" in piped("Hello\n", tmp_path / "nothing").err


def test_a_line_that_is_not_utf8_is_refused_in_one_sentence(piped, folder):
    result = piped("Hello\n\udcff\n", folder, *GREEDY)
    assert result.status == 2
    assert "standard input is not UTF-8 text (byte 6)" in result.err


def test_a_message_too_long_ends_a_pipe_in_one_sentence(piped, folder):
    result = piped("Hello\n" + "word " * 500 + "\n", folder, *GREEDY)
    assert result.status == 2
    assert "leave no room for an answer in the model's context of 200; begin a new one" in result.err
    assert result.out.count("\n") == 1, "the first line was answered"


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        code = f"import sys; sys.argv[1:] = {list(map(str, arguments))!r}; from refllm.cli import main; main()"
        environment = os.environ | {"TERM": "dumb", "NO_COLOR": "1"}
        command = [sys.executable, "-c", code]
        options = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True, "env": environment}
        self.process = subprocess.Popen(command, **options)
        os.close(slave)
        self.seen, self.read_from = "", 0

    def until(self, words, again=lambda: None):
        """Wait for words to be there since something was typed, and return all that was written since.

        again: what is done once a second, for what the program may miss where it is about to wait for a key
        """
        began = acted = time.monotonic()
        while words not in self.seen[self.read_from :]:
            assert time.monotonic() < began + 60, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
            elif time.monotonic() > acted + 1:
                acted = time.monotonic()
                again()
        return self.seen[self.read_from :]

    def type(self, text):
        self.read_from = len(self.seen)
        os.write(self.master, text.encode())

    def interrupt(self, words):
        """Press Ctrl-C, and wait for words."""
        self.read_from = len(self.seen)
        self.process.send_signal(signal.SIGINT)
        return self.until(words, again=lambda: self.process.send_signal(signal.SIGINT))


def test_in_a_terminal_one_is_asked_and_mistakes_and_ctrl_c_end_nothing(folder):
    terminal, prompt = Terminal("chat", folder, *GREEDY), "\n> "
    try:
        assert "Ctrl-C stops an answer" in terminal.until(prompt)
        terminal.type("Hello\n")
        terminal.until(prompt)
        terminal.interrupt("Ctrl-C stops an answer")
        terminal.until(prompt)
        terminal.type("word " * 300 + "\n")
        terminal.until("leave no room for an answer")
        terminal.until("one.\r\n> ")
        terminal.type("/reset\n")
        terminal.until("A new conversation.\r\n> ")
        terminal.type("\x04")
        assert terminal.process.wait(timeout=60) == 0
        assert "Traceback" not in terminal.seen
    finally:
        terminal.process.kill()
        os.close(terminal.master)
