"""Build a tiny random-weight model with its own tokenizer, for tests that need a real engine.

    python tests/support/tiny_model.py FOLDER [llama|gpt2]

Needs transformers and tokenizers; no network. About 2 MB, the same bytes every time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[2] / "config" / "prompts" / "general-v1.jsonl"
VOCABULARY = 512
PAD, BEGIN, END = "<pad>", "<s>", "</s>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def build(folder: str | Path, architecture: str = "llama", chat_template: bool = True) -> Path:
    """Write the model and its tokenizer into ``folder``; ``architecture`` is llama or gpt2.

    The Llama has 2 layers, head size 64, 4 query and 2 key-value heads, so that it can be sharded
    over two ranks; the GPT-2 has 2 layers and 2 heads of the same size.
    """
    folder = Path(folder)
    tokenizer = _tokenizer(chat_template)
    model = _model(architecture, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(chat_template: bool):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [json.loads(line)["text"] for line in CORPUS.read_text("utf-8").splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE if chat_template else None,
    )


def _model(architecture: str, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    # weights far larger than usual: the output varies, and the likeliest token leads by far more
    # than float32 rounds, so greedy ids don't depend on the batch or the engine
    if architecture == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            initializer_range=0.2,
            **tokens,
        )
    elif architecture == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=128,
            n_layer=2,
            n_head=2,
            n_inner=256,
            n_positions=1024,
            initializer_range=0.2,
            **tokens,
        )
    else:
        raise ValueError(f"architecture is {architecture!r}, allowed llama, gpt2")
    state = torch.get_rng_state()
    torch.manual_seed(20260101)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    finally:
        torch.set_rng_state(state)


if __name__ == "__main__":
    build(*sys.argv[1:3])
