"""Floor 1, a side room: text to token ids and back."""

from refllm.tokenizer.added_tokens import AddedToken
from refllm.tokenizer.stream import StreamDecoder
from refllm.tokenizer.template import Template
from refllm.tokenizer.tokenizer import Tokenizer
from refllm.tokenizer.train import train_bpe

__all__ = ["AddedToken", "StreamDecoder", "Template", "Tokenizer", "train_bpe"]
