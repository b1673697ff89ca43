"""Floor 1, a side room: text to token ids and back."""

from refllm.tokenizer.stream import StreamDecoder
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.train import train_bpe

__all__ = ["AddedToken", "StreamDecoder", "Tokenizer", "train_bpe"]
