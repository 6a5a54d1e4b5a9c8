"""Encoder and decoder layers, and stacks of them, that serve every family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.attention import Attention, KeyValue
from speech_ed_flax.layers.cache import Cache, apart, own_slots, side_by_side, visible
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import FeedForward
from speech_ed_flax.layers.fused import check_kernel
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.placement import split_rows
from speech_ed_flax.layers.remat import check_policy, rematerialised
from speech_ed_flax.layers.scan import scan_layers
from speech_ed_flax.types import Array, Bool, Float, Int


class Context(NamedTuple):
    """What a decoder reads of the encoder: projected once per utterance, never per step or beam."""

    layers: tuple[KeyValue, ...]
    mask: Bool[Array, "batch source"] | None


@dataclass(frozen=True)
class LayerConfig:
    """Shape of one transformer layer.

    Attributes:
        width: of the residual stream.
        heads: attention heads; they divide ``width``.
        up_width: of the feed-forward network.
        activation: of the feed-forward network.
        pre_norm: whether a norm comes before each sublayer (else after each sum), and a last one
            after the stack.
        epsilon: of every norm.
        attention_bias: whether the projections of attention have biases.
        key_bias: whether that of its keys has one too.
        scaled: whether scores are divided by the root of ``head_dim``.
        scaled_by_depth: whether layer ``i`` divides its scores by ``i + 1`` as well.
        bottleneck: width of a residual adapter behind each layer (MMS), if any.
        dropout: rate after each sublayer and after the embeddings.
        attention_dropout: rate on the attention weights.
        activation_dropout: rate inside the feed-forward network.
        layer_drop: rate at which whole layers are skipped (LayerDrop; Fan et al., 2019).
        first_stays: whether the first layer of an encoder is never skipped (WavLM).
        attention: kernel of the attention, "xla", "splash" or "cudnn"; see ``attend``.
        remat: what is kept for the backward pass, "none", "dots" or "full"; see ``POLICIES``.
        scan: whether layers are compiled once and looped over, where there is no cache.
        kv_heads: heads of keys and values of the self-attention; ``None`` is ``heads``.
    """

    width: int
    heads: int
    up_width: int
    activation: str
    pre_norm: bool
    epsilon: float = TORCH_EPSILON
    attention_bias: bool = True
    key_bias: bool = True
    scaled: bool = True
    scaled_by_depth: bool = False
    bottleneck: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layer_drop: float = 0.0
    first_stays: bool = False
    attention: str = "xla"
    remat: str = "none"
    scan: bool = False
    kv_heads: int | None = None

    def __post_init__(self):
        """Checks the sizes, the kernel and the policy.

        Raises:
            ConfigError: naming what is wrong.
        """
        check_kernel(self.attention)
        check_policy(self.remat)
        if self.scan and self.scaled_by_depth:
            raise ConfigError(
                "scan=True needs layers that are alike, and these scale their scores by their "
                "depth: use scan=False."
            )
        for name in ("width", "heads", "up_width"):
            size = getattr(self, name)
            if not (isinstance(size, int) and size > 0):
                raise ConfigError(f"{name}={size!r} of a transformer layer must be positive.")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not divisible by {self.heads} heads.")
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ConfigError(
                f"{self.heads} heads are not divisible by {self.kv_heads} heads of keys and values."
            )

    def scale(self, index: int) -> float:
        """Returns the factor of the attention scores of layer ``index``."""
        scale = (self.width // self.heads) ** -0.5 if self.scaled else 1.0
        return scale / (index + 1) if self.scaled_by_depth else scale


class Bottleneck(nn.Module):
    """The attention adapter of MMS (Pratap et al., 2023): norm, down, relu, up."""

    width: int
    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch frames width"]) -> Float[Array, "batch frames width"]:
        """Computes the correction that the layer adds to ``x``."""
        x = LayerNorm(TORCH_EPSILON, name="norm")(x)
        x = jax.nn.relu(Dense(self.inner, name="down")(x))
        return Dense(self.width, name="up")(x)


class Layer(nn.Module):
    """What encoder and decoder layers share: self-attention, feed-forward, norms, residuals.

    A family's own kind of layer may have an ``attention_kind`` of its own.
    """

    config: LayerConfig
    index: int = 0
    attention_kind: ClassVar[type[Attention]] = Attention

    def setup(self):
        """Creates the sublayers."""
        self.self_attention = self._self_attention()
        self.self_attention_norm = LayerNorm(self.config.epsilon)
        self.feed_forward = FeedForward(
            self.config.width,
            self.config.up_width,
            self.config.activation,
            self.config.activation_dropout,
        )
        self.feed_forward_norm = LayerNorm(self.config.epsilon)
        self.drop = Dropout(self.config.dropout)

    def _self_attention(self) -> nn.Module:
        return self._attention(self.config.kv_heads)

    def _attention(self, kv_heads: int | None = None) -> Attention:
        return self.attention_kind(
            self.config.width,
            self.config.heads,
            key_bias=self.config.key_bias,
            scale=self.config.scale(self.index),
            dropout=self.config.attention_dropout,
            kernel=self.config.attention,
            use_bias=self.config.attention_bias,
            kv_heads=kv_heads,
        )

    def _residual(self, x, norm, sublayer):
        """Adds ``sublayer`` to ``x``, with the norm where this kind of layer has it."""
        if self.config.pre_norm:
            return split_rows(x + self.drop(sublayer(norm(x))))
        return norm(split_rows(x + self.drop(sublayer(x))))


class EncoderLayer(Layer):
    """Self-attention over all frames, then feed-forward."""

    def setup(self):
        """Creates the sublayers."""
        super().setup()
        if self.config.bottleneck is not None:
            self.bottleneck = Bottleneck(self.config.width, self.config.bottleneck)

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        mask: Bool[Array, "#batch #heads #frames frames"] | None,
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; frames that ``mask`` hides are seen by nobody.

        A family's own kind of layer may read more: what its stack is given besides.
        """
        attention = self.self_attention
        x = self._residual(
            x, self.self_attention_norm, lambda y: attention(y, attention.project(y), mask)
        )
        x = self._residual(x, self.feed_forward_norm, self.feed_forward)
        return x + self.bottleneck(x) if self.config.bottleneck is not None else x


class DecoderLayer(Layer):
    """Causal self-attention, cross-attention to the encoder, then feed-forward."""

    def setup(self):
        """Creates the sublayers."""
        super().setup()
        self.cross_attention = self._attention()
        self.cross_attention_norm = LayerNorm(self.config.epsilon)

    def context(self, states: Float[Array, "batch source other"]) -> KeyValue:
        """Projects encoder states to the keys and values of the cross-attention."""
        return self.cross_attention.project(states)

    def attend(
        self,
        x: Float[Array, "batch queries width"],
        cache: KeyValue | None,
        index: Int[Array, ""] | int,
        mask: Bool[Array, "#batch #heads queries keys"],
    ) -> tuple[Float[Array, "batch queries width"], KeyValue | None]:
        """Reads the text; a family's own kind of layer may read what its stack is given besides."""
        key_value = self.self_attention.project(x)
        if cache is not None:
            key_value = cache = cache.write(key_value, index)
        return self.self_attention(x, key_value, mask), cache

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        context: KeyValue,
        context_mask: Bool[Array, "batch #heads #queries source"] | None,
        cache: KeyValue | None,
        index: Int[Array, ""] | int,
        mask: Bool[Array, "#batch #heads queries keys"],
        *shared: Float[Array, "batch queries any"],
    ) -> tuple[Float[Array, "batch queries width"], KeyValue | None]:
        """Transforms ``x``, tokens of all hypotheses of an utterance side by side.

        Returns:
            The new ``x``, and the cache with its keys and values written at ``index``.
        """

        def attend_self(y):
            nonlocal cache
            attended, cache = self.attend(y, cache, index, mask, *shared)
            return attended

        def attend_cross(y):
            return self.cross_attention(y, context, context_mask)

        x = self._residual(x, self.self_attention_norm, attend_self)
        x = self._residual(x, self.cross_attention_norm, attend_cross)
        return self.feed(x), cache

    def feed(self, x: Float[Array, "batch queries width"]) -> Float[Array, "batch queries width"]:
        """Applies the feed-forward network, as the last thing that the layer does."""
        return self._residual(x, self.feed_forward_norm, self.feed_forward)


def perhaps_skip(stack: nn.Module, before: Array, after: Array) -> Array:
    """Returns ``after`` or, at the stack's ``layer_drop`` under a ``"dropout"`` key, ``before``."""
    rate = stack.config.layer_drop
    if not (rate and stack.has_rng("dropout")):
        return after
    return jnp.where(jax.random.bernoulli(stack.make_rng("dropout"), rate), before, after)


def encode_by_layers(stack: nn.Module, kind: type[nn.Module], x: Array, *shared: Any) -> Array:
    """Returns ``x`` after the layers of a stack, ``layers_{}``, made and called as its config says.

    Args:
        stack: with ``config`` and ``depth``; called in its compact method.
        kind: class of the layers, called as ``kind(config, index)(x, *shared)``.
        x: what the first layer reads.
        *shared: what every layer reads besides.
    """
    kind = rematerialised(kind, stack.config.remat)
    layers = [kind(stack.config, i, name=f"layers_{i}") for i in range(stack.depth)]
    if stack.config.scan and not stack.is_initializing():
        return scan_layers(stack, layers, lambda apply, x, _: apply(x, *shared), x)
    for index, layer in enumerate(layers):
        after = layer(x, *shared)
        stays = index == 0 and stack.config.first_stays
        x = after if stays else perhaps_skip(stack, x, after)
    return x


class TransformerEncoder(nn.Module):
    """A stack of encoder layers with its norm: before a post-norm stack, after a pre-norm one.

    Attributes:
        config: of every layer.
        depth: number of layers.
        kind: class of the layers, called as ``kind(config, index)(x, mask, *shared)``.
        norm_kind: makes its norm, called as ``norm_kind(epsilon, name=...)``.
    """

    config: LayerConfig
    depth: int
    kind: type[nn.Module] = EncoderLayer
    norm_kind: Callable[..., nn.Module] = LayerNorm

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        mask: Bool[Array, "batch frames"] | None = None,
        *shared: Any,
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; with a ``"dropout"`` key layers are skipped at ``layer_drop``.

        Args:
            x: frames.
            mask: which of them are real.
            *shared: what every layer of this kind reads besides, such as relative positions.
        """
        norm = self.norm_kind(self.config.epsilon, name="norm")
        x = Dropout(self.config.dropout)(x if self.config.pre_norm else norm(x))
        seen = None if mask is None else mask[:, None, None, :]
        x = encode_by_layers(self, self.kind, x, seen, *shared)
        return norm(x) if self.config.pre_norm else x


class TransformerDecoder(nn.Module):
    """A stack of decoder layers, with a last norm if it is pre-norm.

    Attributes:
        config: of every layer.
        depth: number of layers.
        kind: class of the layers.
    """

    config: LayerConfig
    depth: int
    kind: type[DecoderLayer] = DecoderLayer

    def setup(self):
        """Creates the layers."""
        kind = rematerialised(self.kind, self.config.remat)
        self.layers = [kind(self.config, index) for index in range(self.depth)]
        if self.config.pre_norm:
            self.norm = LayerNorm(self.config.epsilon)

    def context(
        self, states: Float[Array, "batch source other"], mask: Bool[Array, "batch source"] | None
    ) -> Context:
        """Projects encoder states for every layer."""
        return Context(tuple(layer.context(states) for layer in self.layers), mask)

    def pairwise(
        self, target: int, length: int, slots: int, position: Int[Array, ""] | int
    ) -> tuple[Array, ...]:
        """Returns what every layer reads of each query and key together; nothing, usually."""
        del target, length, slots, position
        return ()

    def __call__(
        self,
        x: Float[Array, "rows target width"],
        context: Context,
        cache: Cache | None = None,
        position: Int[Array, ""] | int = 0,
        mask: Bool[Array, "rows length"] | None = None,
        *shared: Float[Array, "#rows target any"],
    ) -> tuple[Float[Array, "rows target width"], Cache | None]:
        """Transforms ``x``, whose first position is ``position``; see ``Decoder``.

        Several rows of one utterance are laid side by side, so that they read the encoder's keys
        together and none is copied. ``shared`` is what every layer of this kind reads besides, such
        as the angles of the positions.
        """
        rows, target, batch = *x.shape[:2], context.layers[0].key.shape[0]
        slots = rows // batch
        x = side_by_side(x, batch)
        shared = tuple(
            side_by_side(jnp.broadcast_to(one, (rows, *one.shape[1:])), batch) for one in shared
        )
        if cache is None:
            length = target
            ancestry = own_slots(batch, slots, target) if slots > 1 else None
        else:
            cache = cache.extended(position, target)
            length, ancestry = cache.length, cache.ancestry
        seen = visible(target, length, position, ancestry, mask)
        shared += self.pairwise(target, length, slots, position)
        context_mask = None if context.mask is None else context.mask[:, None, None, :]
        if self.config.scan and cache is None and not self.is_initializing():
            x = scan_layers(
                self,
                self.layers,
                lambda apply, x, key_value: apply(
                    x, key_value, context_mask, None, 0, seen, *shared
                )[0],
                x,
                context.layers,
            )
            return apart(self._last(x), slots), None
        written = []
        for number, layer in enumerate(self.layers):
            old = None if cache is None else cache.layers[number]
            arguments = (context.layers[number], context_mask, old, position * slots, seen, *shared)
            after, new = layer(x, *arguments)
            x = perhaps_skip(self, x, after)
            written.append(new)
        x = apart(self._last(x), slots)
        return x, None if cache is None else cache._replace(layers=tuple(written))

    def _last(self, x: Float[Array, "batch queries width"]) -> Float[Array, "batch queries width"]:
        return self.norm(x) if self.config.pre_norm else x
