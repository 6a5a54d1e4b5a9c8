"""A pickle read as data: the few opcodes that a state dict is made of, and nothing that can run.

Python's unpickler imports and calls what a pickle names, and believes sizes that it declares (one
five-byte opcode grows its memo to gigabytes). Here ``pickletools`` splits the stream into opcodes
and a small stack machine follows them. To it a global is only a name on a list, a call only makes
a record of its arguments, and nothing recurses.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from speech_ed_flax.conversion.declarations import CALLS, STORAGES, Storage, exactly
from speech_ed_flax.errors import CheckpointError

__all__ = ["LIMIT", "load"]

LIMIT = 16 << 20
"""Bytes of pickle that are looked at; 40,000 tensors need about 10 MB."""

_MOST_OPCODES = 1 << 21  # each can cost an object of about 64 bytes: 128 MB at worst


@dataclass(frozen=True)
class _Global:
    """The name of a global on the list; it is never looked up in Python."""

    name: str


def load(stream: BytesIO) -> tuple[object, dict[str, Storage]]:
    """Reads one pickle from a stream and leaves the stream behind it.

    Returns:
        What it describes (dicts, lists, tuples, numbers, strings, ``Tensor``) and the storages it
        refers to, by key.

    Raises:
        CheckpointError: if it uses anything that a state dict does not need.
        ValueError, LookupError, TypeError, AttributeError: if it is damaged.
    """
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MOST_OPCODES:
            raise CheckpointError(f"its pickle has more than {_MOST_OPCODES} opcodes")
        machine.step(opcode.name, argument)
    return machine.stack.pop(), machine.storages


class _Machine:
    """The stack, the stacks below each open mark, the memo, and the storages met so far."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Follows one opcode."""
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[opcode])))
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self)
        elif opcode in _ACTIONS_WITH_ARGUMENT:
            _ACTIONS_WITH_ARGUMENT[opcode](self, argument)
        elif opcode not in _WITHOUT_EFFECT:
            named = "" if argument is None else f" {str(argument)[:80]!r}"
            raise CheckpointError(f"its pickle uses {opcode}{named}, which no state dict needs")

    def take(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def open_mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def close_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def push_dict(self) -> None:
        self.stack.append({})

    def push_list(self) -> None:
        self.stack.append([])

    def push_marked_tuple(self) -> None:
        items = tuple(self.close_mark())
        self.stack.append(items)

    def append_item(self) -> None:
        item = self.stack.pop()
        exactly(list, self.stack[-1]).append(item)

    def append_items(self) -> None:
        items = self.close_mark()
        exactly(list, self.stack[-1]).extend(items)

    def set_item(self) -> None:
        self._set(self.take(2))

    def set_items(self) -> None:
        self._set(self.close_mark())

    def _set(self, items: list[Any]) -> None:
        target = exactly(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # hashing a deeply nested tuple exhausts the C stack
                raise CheckpointError(f"its pickle has a {type(key).__name__} as the key of a dict")
            target[key] = value

    def drop_attributes(self) -> None:
        """Forgets what is set on an OrderedDict: ``_metadata``, the versions of torch modules."""
        self.stack.pop()
        exactly(dict, self.stack[-1])

    def memoize(self) -> None:
        self.remember(len(self.memo))

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def push_global(self, module_and_name: str) -> None:
        self._refer(*module_and_name.split(" ", 1))

    def push_global_on_stack(self) -> None:
        module, name = self.take(2)
        self._refer(exactly(str, module), exactly(str, name))

    def _refer(self, module: str, name: str) -> None:
        dotted = f"{module}.{name}"
        if dotted not in STORAGES and dotted not in CALLS:
            raise CheckpointError(
                f"its pickle refers to {dotted[:200]!r}, which no plain state dict contains and"
                " which is refused: save model.state_dict(), or a safetensors file, instead"
            )
        self.stack.append(_Global(dotted))

    def call(self) -> None:
        function, arguments = self.take(2)
        self.stack.append(CALLS[exactly(_Global, function).name](*exactly(tuple, arguments)))

    def push_storage(self) -> None:
        kind, dtype, key, _, elements, *view = exactly(tuple, self.stack.pop())
        if kind != "storage" or any(part is not None for part in view):
            raise CheckpointError("its pickle refers to something other than a plain storage")
        dtype = STORAGES[exactly(_Global, dtype).name]
        if not 0 <= exactly(int, elements) < 1 << 63:
            raise CheckpointError(f"its storage {exactly(str, key)[:80]!r} declares no valid size")
        storage = Storage(dtype, exactly(str, key), elements)
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"its storage {key[:80]!r} is declared twice, differently")
        self.stack.append(storage)


_WITHOUT_EFFECT = frozenset({"PROTO", "FRAME", "STOP"})

_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.open_mark,
    "EMPTY_DICT": _Machine.push_dict,
    "EMPTY_LIST": _Machine.push_list,
    "TUPLE": _Machine.push_marked_tuple,
    "APPEND": _Machine.append_item,
    "APPENDS": _Machine.append_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BUILD": _Machine.drop_attributes,
    "MEMOIZE": _Machine.memoize,
    "STACK_GLOBAL": _Machine.push_global_on_stack,
    "REDUCE": _Machine.call,
    "BINPERSID": _Machine.push_storage,
}

_ACTIONS_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    "PUT": _Machine.remember,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.push_global,
}
