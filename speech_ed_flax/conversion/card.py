"""The model card that goes with saved weights."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from speech_ed_flax.conversion.replacement import replacing

_BODY = """
# {encoder} + {decoder}

A speech encoder-decoder: a `{encoder}` speech encoder joined to a `{decoder}` text decoder by
cross-attention.

```python
from speech_ed_flax import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_pretrained("path/to/this/folder")
print(model.transcribe("speech.wav").text)
```

PyTorch transformers loads the same files.
"""


def write_card(folder: Path, config: Any) -> None:
    """Writes ``README.md`` with its metadata; one that is there already is left alone."""
    path = folder / "README.md"
    if path.exists():
        return
    data = ModelCardData(
        library_name="speech_ed_flax",
        pipeline_tag="automatic-speech-recognition",
        tags=["speech-encoder-decoder", config.encoder.model_type, config.decoder.model_type],
    )
    body = _BODY.format(encoder=config.encoder.model_type, decoder=config.decoder.model_type)
    with replacing(path) as temporary:
        temporary.write_text(f"---\n{data.to_yaml()}\n---\n{body}")
