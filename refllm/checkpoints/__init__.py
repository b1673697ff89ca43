"""Floor 3: models in and out of files."""

from pathlib import Path

from refllm.array_api import Backend
from refllm.checkpoints import adapter, gguf_model, hugging_face, json_file, llama2c
from refllm.checkpoints.hugging_face import CONFIG
from refllm.checkpoints.shards import LARGEST
from refllm.models.model import Model

__all__ = ["load", "save"]


def load(path: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a model from a Hugging Face folder, a llama2.c .bin or a GGUF file; its first bytes tell which.

    A folder of PEFT's, which holds an adapter, gives the model that it adapts, with the adapter added.
    Its parameters stay in the file until they are used.
    backend: where its parameters live; None: the one in use    dtype: of the parameters, such as "float32"; None: the file's own
    Raises OSError where a file is missing, ValueError where one does not hold what it should.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; a model is a folder with config.json and model.safetensors, a llama2.c .bin or a .gguf."
        )
    if adapter.is_adapter(path):
        return adapter.read_model(path, backend, dtype)
    if path.is_dir():
        found = sorted(path.glob("*.gguf")) if not (path / CONFIG).exists() else []
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise ValueError(f"{path} holds several models, {names}; name one of them.")
        if not found:
            return hugging_face.read_model(path, backend, dtype)
        path = found[0]
    with open(path, "rb") as file:
        head = file.read(10)
    if head[:4] == b"GGUF":
        return gguf_model.read_model(path, backend, dtype)
    if head[:2] in (b"PK", b"\x80\x02"):
        raise ValueError(f"{path} is a file of torch.save, which is not read: it is a pickle, which can run any program.")
    tensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= json_file.LARGEST
    if tensors or path.suffix == ".safetensors":
        raise ValueError(f"{path} holds tensors, but not what model they make up; name the folder, which has a {CONFIG} too.")
    return llama2c.read_model(path, backend, dtype)


def save(folder: str | Path, model: Model, dtype: str | None = None, max_shard_size: int | str = LARGEST) -> None:
    """Write a model as a Hugging Face folder: config.json, model.safetensors and, if it has a tokenizer, tokenizer.json.

    dtype: of the stored parameters, such as "bfloat16"; None: their own
    max_shard_size: of a file, in bytes or as "5GB"; a larger model is cut into several
    Raises OSError where the disk refuses; each old file then stays whole.
    """
    hugging_face.write_model(folder, model, dtype, max_shard_size)
