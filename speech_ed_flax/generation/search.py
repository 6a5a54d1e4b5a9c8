"""A whole search: start, steps in one loop, finish; or stretches of the loop, as many as wanted."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jax import lax

from speech_ed_flax.generation.beam import BeamSearch
from speech_ed_flax.generation.groups import GroupSearch
from speech_ed_flax.generation.plan import Limits, Plan, check_key
from speech_ed_flax.generation.sampling import Sampling
from speech_ed_flax.generation.steps import Cache, Found, Rules, Step
from speech_ed_flax.types import Array, Int

State = Any
"""A pytree with at least ``length`` (of all rows, a number) and ``unfinished`` (a boolean)."""


@runtime_checkable
class Search(Protocol):
    """One way to search."""

    def start(self, step: Step, cache: Cache, prompt: Array, limits: Limits) -> State:
        """Returns the state after the prompt ``[batch, prompt]``."""
        ...

    def advance(self, step: Step, state: State, rules: Rules) -> State:
        """Returns the state after one more step of all rows."""
        ...

    def finish(self, state: State, limits: Limits) -> Found:
        """Returns what was found so far."""
        ...


def search_of(plan: Plan) -> Search:
    """Returns the way to search that a plan asks for."""
    if plan.num_beam_groups > 1:
        return GroupSearch(plan)
    return BeamSearch(plan) if plan.num_beams > 1 else Sampling(plan)


def search(
    step: Step,
    cache: Cache,
    prompt: Int[Array, "batch prompt"],
    plan: Plan,
    rules: Rules,
) -> Found:
    """Searches from the prompt to the end in one ``lax.while_loop``.

    Args:
        step: the model, see :mod:`speech_ed_flax.generation.steps`; its rows are
            batch x ``plan.copies``, copies innermost.
        cache: what the step carries, empty; every leaf leads with the rows.
        prompt: at least one token an utterance, none of it padding.
        plan: what the code depends on.
        rules: what it only reads.

    Raises:
        ConfigError: if the plan samples and the rules have no key.
    """
    check_key(plan, rules.key)
    way = search_of(plan)
    state = run(way, step, way.start(step, cache, prompt, rules.limits), rules)
    return way.finish(state, rules.limits)


def run(
    way: Search, step: Step, state: State, rules: Rules, until: Int[Array, ""] | None = None
) -> State:
    """Returns the state when the search ended, or its rows have ``until`` tokens."""

    def goes_on(state: State) -> Array:
        return state.unfinished if until is None else state.unfinished & (state.length < until)

    return lax.while_loop(goes_on, lambda state: way.advance(step, state, rules), state)
