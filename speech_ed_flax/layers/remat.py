"""What a layer keeps for the backward pass, and what it computes again to save memory."""

import flax.linen as nn
import jax

from speech_ed_flax.errors import ConfigError

POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What is kept of each layer: everything, the products with weights, or its input only."""


def check_policy(name: str) -> None:
    """Raises ConfigError if there is no policy of that name."""
    if name not in POLICIES:
        raise ConfigError(f"remat={name!r} is not known: use one of {', '.join(POLICIES)}.")


def rematerialised(layer: type[nn.Module], name: str) -> type[nn.Module]:
    """Returns the class of layers that keep what the policy says; its parameters are the same."""
    return layer if name == "none" else nn.remat(layer, policy=POLICIES[name])
