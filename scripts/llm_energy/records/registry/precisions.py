"""Name every precision once: how its weights come about, and what may hold them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FP8 = ("float8_e4m3fn",)
PACKED = ("int32", "uint8")  # none has a type of its own for several numbers in one
COMPRESSED = ("compressed-tensors",)


@dataclass(frozen=True)
class Precision:
    """What a precision's name stands for.

    ``bits`` are those of one weight of a linear layer, ``activations`` those of what it is
    multiplied by where that is quantised too. ``method`` is what quantises, None for floats.
    ``held_as`` are the data types that such weights may have in memory; an engine may repack them
    for its kernels. One with ``formats`` takes a checkpoint that was quantised before: they are
    the ``quant_method`` that it may say, ``stored_as`` the data types of its weights in safetensors
    files.
    """

    bits: int
    method: str | None = None
    held_as: tuple[str, ...] = ()
    activations: int | None = None
    formats: tuple[str, ...] = ()
    stored_as: tuple[str, ...] = ()
    kind: str = "int"

    @property
    def is_float(self) -> bool:
        """Return whether the name is that of a data type, which weights are computed in too."""
        return self.method is None


# `int8` and `int4` are passed to the matrix by keys of their own, all others that quantise by name.
PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(32),
    "float16": Precision(16),
    "bfloat16": Precision(16),
    "int8": Precision(8, "bitsandbytes LLM.int8(), while loading", ("int8",)),
    "int4": Precision(4, "bitsandbytes nf4, while loading", ("uint8",)),
    "fp8": Precision(8, "weights and activations in E4M3, while loading", FP8, 8, kind="float"),
    "awq": Precision(4, "AWQ", PACKED, formats=("awq",), stored_as=("I32",)),
    "gptq": Precision(4, "GPTQ", PACKED, formats=("gptq",), stored_as=("I32",)),
    "w4a16": Precision(4, "weights alone", PACKED, formats=COMPRESSED, stored_as=("I32",)),
    "w8a8": Precision(8, "weights and activations", ("int8",), 8, COMPRESSED, ("I8",)),
    "fp8-checkpoint": Precision(
        *(8, "weights and activations in E4M3", FP8, 8),
        (*COMPRESSED, "fp8", "fbgemm_fp8", "modelopt"),
        ("F8_E4M3",),
        "float",
    ),
    "nvfp4": Precision(
        *(4, "weights and activations in E2M1", ("uint8",), 4),
        (*COMPRESSED, "modelopt", "modelopt_fp4"),
        ("U8",),
        "float",
    ),
    "mxfp4": Precision(
        4, "weights in E2M1", ("uint8",), None, ("mxfp4", *COMPRESSED), ("U8",), "float"
    ),
}
CHECKPOINTS = tuple(name for name, precision in PRECISIONS.items() if precision.formats)
QUANTISED = tuple(name for name, precision in PRECISIONS.items() if not precision.is_float)
BY_KEY = {"int4": "load_in_4bit", "int8": "load_in_8bit"}


def quantization_of(precision: str) -> dict[str, Any]:
    """Return the universal parameter ``quantization`` of a precision.

    >>> quantization_of("int8")
    {'load_in_4bit': False, 'load_in_8bit': True}
    >>> quantization_of("fp8")
    {'load_in_4bit': False, 'load_in_8bit': False, 'scheme': 'fp8'}
    """
    keys = {key: precision == name for name, key in BY_KEY.items()}
    named = precision in QUANTISED and precision not in BY_KEY
    return keys | ({"scheme": precision} if named else {})


def precision_of(parameters: Mapping[str, Any]) -> str:
    """Return the name of the precision that a workload's parameters ask for.

    >>> precision_of({"fp_precision": "bfloat16", "quantization": quantization_of("int4")})
    'int4'
    >>> precision_of({"fp_precision": "bfloat16", "quantization": quantization_of("bfloat16")})
    'bfloat16'
    """
    asked = parameters["quantization"]
    by_key = (name for name, key in BY_KEY.items() if asked.get(key))
    return asked.get("scheme") or next(by_key, parameters["fp_precision"])


def differs(precision: str, held: Iterable[str]) -> str | None:
    """Say how weights in memory differ from a precision that quantises; None where they do not.

    ``held`` are the data types of the weights. What stays in 16 or 32 bits, such as embeddings, is
    no difference.

    >>> differs("fp8", ["bfloat16", "float8_e4m3fn"])
    >>> differs("fp8", ["bfloat16", "int32"])
    'asked for fp8, whose weights are float8_e4m3fn in memory; the engine holds bfloat16, int32'
    """
    allowed, held = PRECISIONS[precision].held_as, sorted(held)
    if not allowed or set(allowed) & set(held):
        return None
    return (
        f"asked for {precision}, whose weights are {' or '.join(allowed)} in memory; the engine "
        f"holds {', '.join(held)}"
    )
