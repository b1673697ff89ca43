"""Floor 3: models in and out of files."""

from pathlib import Path

from refllm.array_api import Backend
from refllm.checkpoints import hugging_face, llama2c
from refllm.models.model import Model

__all__ = ["load", "save"]


def load(path: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a model from a Hugging Face folder or a llama2.c .bin file.

    backend: where its parameters live; None: the one in use    dtype: of the parameters, such as "float32"; None: the file's own
    Raises OSError where a file is missing, ValueError where one does not hold what it should.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; a model is a folder with config.json and model.safetensors, or a llama2.c .bin."
        )
    if path.is_dir():
        return hugging_face.read_model(path, backend, dtype)
    return llama2c.read_model(path, backend, dtype)


def save(folder: str | Path, model: Model, dtype: str | None = None) -> None:
    """Write a model as a Hugging Face folder: config.json, model.safetensors and, if it has a tokenizer, tokenizer.json.

    dtype: of the stored parameters, such as "bfloat16"; None: their own
    Raises OSError where the disk refuses; each old file then stays whole.
    """
    hugging_face.write_model(folder, model, dtype)
