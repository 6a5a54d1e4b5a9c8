"""Makes the checkpoint of ``speech_to_text_2/`` with a transformers that could still run one.

Transformers 5 has no Speech2Text2, and that of 4.57 cannot be built any more. Run it where
transformers 4.36.2 and torch are installed::

    python tests/data/make_speech_to_text_2.py

The folder gets what ``facebook/s2t-wav2vec2-large-en-de`` holds (``config.json``,
``pytorch_model.bin``, ``vocab.json``, ``merges.txt``, ``tokenizer_config.json``), at tiny sizes
and with every flag kept; ``expected.npz`` with what PyTorch computes; ``texts.json`` with what the
tokenizer makes of texts and of tokens.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import (
    Speech2Text2Config,
    Speech2Text2Tokenizer,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)

FOLDER = Path(__file__).parent / "speech_to_text_2"
VOCAB, PAD, END, LONGEST = 40, 1, 2, 12

ENCODER = Wav2Vec2Config(
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(8, 8),
    conv_kernel=(10, 3),
    conv_stride=(5, 2),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_bias=True,
)
DECODER = Speech2Text2Config(
    vocab_size=VOCAB,
    d_model=16,
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=24,
    max_target_positions=32,
    activation_function="relu",
    scale_embedding=True,
    tie_word_embeddings=False,
)
GENERATION = {
    "decoder_start_token_id": END,
    "num_beams": 5,
    "max_length": 200,
    "early_stopping": True,
}

WORDS = ("lie", "lieb", "liebe", "r", "b", "au", "m", "ü", "<b>", ".")
PIECES = ("li@@", "lie@@", "lieb@@", "b@@", "a@@", "au@@", "ü@@", ".@@")
MERGES = ("l i", "li e</w>", "li e", "lie b", "lie b</w>", "lieb e</w>", "b a", "a u", "a u</w>")
"""Not every product of a merge is in the vocabulary: rare ones were dropped from those in use."""

TEXTS = ("liebe lieb lieber", " bau  baum. ü übel", "x <pad> a@@ lie</s>", "")


def draw(model: SpeechEncoderDecoderModel) -> None:
    """Gives every weight random numbers, so large that a wrong one shows."""
    numbers = torch.Generator().manual_seed(1)
    for name, values in model.state_dict().items():
        if name.endswith("embed_positions.weights"):
            continue
        noise = torch.randn(values.shape, generator=numbers)
        if values.ndim > 1 and not name.endswith("weight_g"):
            values.copy_(noise * values[0].numel() ** -0.5)
        else:
            values.copy_(0.3 * noise if name.endswith("bias") else (0.3 * noise).exp())


def compute(model: SpeechEncoderDecoderModel) -> dict[str, np.ndarray]:
    """Returns inputs and what the model makes of them, masked and not."""
    numbers = np.random.default_rng(0)
    inputs = torch.tensor(numbers.standard_normal((3, 400)), dtype=torch.float32)
    mask = torch.tensor(np.arange(400) < np.array([[400], [290], [200]])).long()
    labels = torch.tensor(numbers.integers(4, VOCAB, (3, 7)))
    labels[1, 5:] = labels[2, 2:] = -100
    # Padding in front and between: its positions are those that nobody counts.
    padded = torch.tensor([[PAD, 9, 8, 7], [2, PAD, 5, 30], [PAD, PAD, 6, 6]])
    arrays = {"inputs": inputs, "mask": mask, "labels": labels, "padded": padded}
    for suffix, real in (("", None), ("_masked", mask)):
        model.zero_grad()
        output = model(inputs, attention_mask=real, labels=labels)
        output.loss.backward()
        arrays |= {"logits" + suffix: output.logits, "loss" + suffix: output.loss}
    arrays |= {
        f"gradient {name}": values.grad
        for name, values in model.named_parameters()
        if values.grad is not None
    }
    arrays["logits_padded"] = model(inputs, decoder_input_ids=padded).logits
    for start in (PAD, END):
        settings = {"attention_mask": mask, "max_length": LONGEST, "eos_token_id": 5}
        for beams in (1, 3):
            tokens = model.generate(
                inputs, decoder_start_token_id=start, num_beams=beams, **settings
            )
            arrays[f"tokens_from_{start}_of_{beams}"] = tokens
    return {name: array.detach().numpy() for name, array in arrays.items()}


def make_tokenizer() -> Speech2Text2Tokenizer:
    """Writes the tokenizer's files; returns the tokenizer."""
    known = ("<s>", "<pad>", "</s>", "<unk>", *WORDS, *PIECES)
    vocab = {token: index for index, token in enumerate(known)}
    (FOLDER / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (FOLDER / "merges.txt").write_text("".join(f"{m} {9 - i}\n" for i, m in enumerate(MERGES)))
    fields = {"tokenizer_class": "Speech2Text2Tokenizer", "do_lower_case": False}
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(fields))
    return Speech2Text2Tokenizer.from_pretrained(FOLDER)


def read_and_write(tokenizer: Speech2Text2Tokenizer) -> dict[str, list]:
    """Returns texts with their tokens, and tokens with their texts, special tokens and not.

    Transformers 4.57, unlike 4.36, does not take spaces away by default.
    """
    rows = [tokenizer(text).input_ids for text in TEXTS]
    rows += np.random.default_rng(2).integers(0, len(tokenizer), (6, 9)).tolist()
    written = [
        [
            tokenizer.decode(row, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            for skip in (True, False)
        ]
        for row in rows
    ]
    return {"texts": list(TEXTS), "tokens": rows, "written": written}


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        ENCODER, DECODER, pad_token_id=PAD, eos_token_id=END, **GENERATION
    )
    model = SpeechEncoderDecoderModel(config).eval()
    with torch.no_grad():
        draw(model)
    model.save_pretrained(FOLDER, safe_serialization=False)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)  # as published
    np.savez_compressed(FOLDER / "expected.npz", **compute(model))
    texts = read_and_write(make_tokenizer())
    (FOLDER / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n")
