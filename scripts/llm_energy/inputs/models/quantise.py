"""Quantise a model to 8 bits once, for engines that can't while they load it."""

from __future__ import annotations

import shutil
from pathlib import Path

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.packages import versions

TOOLS = ("transformers", "bitsandbytes", "torch")


def quantise_8bit(folder: Path, out: Path) -> dict[str, str]:
    """Write the model in ``folder`` with LLM.int8() weights into ``out``; give the tools' versions.

    The embeddings, the norms and the output layer keep the stored dtype. Tokenizer files are
    copied as they are. Method: Dettmers et al. 2022, arXiv:2208.07339.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    network = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype="auto",
        device_map={"": "cpu"},
        quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True),
    )
    if not any(weight.dtype == torch.int8 for weight in network.parameters()):
        raise LlmEnergyError(f"{folder}: bitsandbytes quantised no weight of this architecture")
    network.save_pretrained(out)
    for path in folder.glob("[!.]*"):
        if ".safetensors" not in path.suffixes and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
    for saved in out.iterdir():
        saved.chmod(0o644)  # safetensors makes its files readable by the owner alone
    return versions(TOOLS)
