"""Convert a GGUF checkpoint, quantised or not, to safetensors that every engine can load."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.packages import versions

# What its reader raises, for a header that lies about sizes too.
UNREADABLE = (
    *(ValueError, NotImplementedError, KeyError, OSError, ImportError, OverflowError),
    *(IndexError, TypeError, AttributeError, MemoryError, RuntimeError),  # RecursionError too
)
TIED = 2  # weights of a model for each that its file holds; an embedding may serve as head too
UNQUANTISED_TYPES = {"F64", "F32", "F16", "BF16"}


def convert_gguf(path: Path, files: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Write the GGUF file ``path`` into ``files`` as safetensors, config and tokenizer.

    No weight is rounded: the narrowest dtype is taken that holds every one exactly. Gives the
    versions of the tools and the notes for the manifest. What transformers cannot convert, or not
    completely, raises LlmEnergyError.
    """
    import torch
    import transformers

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with _read_once() as read:
            types = _types(read(str(path)))
            _require_weights(types.total(), len(read(str(path)).tensors), where)
            network, loading = transformers.AutoModelForCausalLM.from_pretrained(
                **where,
                dtype=torch.float32,
                quantization_config=transformers.GgufConfig(dequantize=True),
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except UNREADABLE as error:
        raise LlmEnergyError(
            f"transformers {transformers.__version__} cannot convert "
            f"{path.name} ({type(error).__name__}: {error}). Use a safetensors version "
            "of the model: source: {kind: hub} or {kind: folder, path: ...}"
        ) from None
    if loading["missing_keys"]:  # transformers would fill them with random numbers and only warn
        raise LlmEnergyError(
            f"{path.name} lacks {', '.join(sorted(loading['missing_keys'])[:12])}; "
            "use a safetensors version of the model"
        )
    # else save_pretrained tries to write the GGUF settings and says "not serializable"
    network.hf_quantizer = None
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.to(_narrowest_exact_dtype(network)).save_pretrained(files)
    tokenizer.save_pretrained(files)
    for saved in files.iterdir():
        saved.chmod(0o644)  # safetensors makes its files readable by the owner alone
    tools = ("transformers", "gguf", "torch")
    return versions(tools), (_note(types),)


@contextlib.contextmanager
def _read_once() -> Iterator[Callable[[str], Any]]:
    """Make transformers read a GGUF file once, not for each of config, weights and tokenizer.

    It also makes the name map of the tensors anew for every module, and the reader slices a memory
    map for every number. Without all that the conversion of a 135M model takes 5 s, not 24 s; the
    files that result are the same bytes.
    """
    import gguf
    import numpy

    class Reader(gguf.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            order = override_order or self.byte_order
            dtype = numpy.dtype(dtype).newbyteorder(order)
            return numpy.frombuffer(self.data, dtype, int(count), int(offset))

    read = functools.cache(Reader)
    name_map = functools.cache(gguf.get_tensor_name_map)
    with mock.patch.multiple(gguf, GGUFReader=read, get_tensor_name_map=name_map):
        yield read


def _require_weights(weights: int, tensors: int, where: dict[str, str]) -> None:
    """Raise ValueError where a file holds too little for the model that its header describes.

    transformers would make all of that model, in memory, before it misses anything.
    """
    import torch
    import transformers

    if not weights:
        raise ValueError("it holds no weights")
    config = transformers.AutoConfig.from_pretrained(**where, trust_remote_code=False)
    layers = config.get_text_config().num_hidden_layers
    if not 0 < layers <= tensors:
        raise ValueError(f"its header says {layers} layers, and it holds {tensors} tensors")
    with torch.device("meta"):  # which allocates nothing
        needed = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    if needed > TIED * weights:
        raise ValueError(f"its header describes {needed} weights, and it holds {weights}")


def _types(reader: Any) -> Counter[str]:
    types: Counter[str] = Counter()
    for tensor in reader.tensors:
        types[tensor.tensor_type.name] += int(tensor.n_elements)
    return types


def _note(types: Counter[str]) -> str:
    percent = ((name, 100 * count / types.total()) for name, count in types.most_common())
    shares = ", ".join(f"{name} {share:.1f} %" for name, share in percent if share >= 0.05)
    if set(types) <= UNQUANTISED_TYPES:
        return f"converted from GGUF ({shares} of the weights)"
    name = types.most_common(1)[0][0]
    digits = re.search(r"Q(\d)", name)
    bits = f"{digits[1]}-bit " if digits else ""
    return (
        f"dequantised {bits}checkpoint ({name}): precision comparisons on it compare roundings "
        "of weights that were already rounded once, not of the original model "
        f"(by weights: {shares})"
    )


def _narrowest_exact_dtype(network: Any) -> Any:
    """Return the narrowest dtype that holds every weight of a float32 model without rounding."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(p, p.to(dtype).float()) for p in network.parameters()):
            return dtype
    return torch.float32
