"""A tiny random model that says three words of whatever it hears."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BartConfig, PreTrainedTokenizerFast, Wav2Vec2Config

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.conversion.config import join
from speech_ed_flax.conversion.processor import Processor

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "one", "two", "three", "four", "five", "six", "seven"]


def guesser() -> FlaxSpeechEncoderDecoderModel:
    """Returns a new one; it is sure of nothing."""
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), WORDS, strict=False))
    encoder = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 8),
        conv_stride=(5, 8, 8),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
    decoder = BartConfig(vocab_size=11, decoder_ffn_dim=16, max_position_embeddings=32, **sizes)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    decoder.forced_eos_token_id = None
    built = FlaxSpeechEncoderDecoderModel(
        join(encoder, decoder, **ids),
        processor=Processor(
            WaveformFeatures(), PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
        ),
    )
    # Without these a random model could say nothing but special tokens, which are no text.
    built.generation_config.update(min_new_tokens=3, max_new_tokens=3, suppress_tokens=[0, 1, 3])
    return built
