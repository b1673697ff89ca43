"""Which checkpoint it is: a hash of what decides a model's numbers."""

import hashlib
from pathlib import Path

# Of a folder, in this order; a run's state, its tokenizer and its text are none of them.
DECISIVE = ("config.json", "adapter_config.json", "model*.safetensors", "adapter_model.safetensors", "*.gguf")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a checkpoint's file, or of the configuration and weights of its folder: 64 hexadecimal digits.

    It reads every byte, a gigabyte in about a second.
    Raises OSError where there is none.
    """
    path = Path(path)
    files = [file for pattern in DECISIVE for file in sorted(path.glob(pattern))] if path.is_dir() else [path]
    hashes = []
    for name in files:
        with open(name, "rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if path.is_file() else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
