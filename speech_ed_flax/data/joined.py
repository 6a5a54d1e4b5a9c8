"""Several stores as one."""

from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from speech_ed_flax.data.store import Reader, Store


class JoinedReader:
    """Reads rows of several readers, one after the other."""

    def __init__(self, readers: Sequence[Reader], sizes: Sequence[int]):
        self._readers, self._starts = readers, [0, *accumulate(sizes)]

    def read(self, row: int) -> np.ndarray:
        """Returns float32 ``[samples]``."""
        which = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._readers[which].read(row - self._starts[which])


def open_stores(paths: Sequence[str | Path], rate: int = 16_000) -> Store:
    """Opens prepared folders and manifests as one store; see ``Store.open``.

    Names of rows that are in several of them begin with the number of their store.
    """
    stores = [Store.open(path, rate) for path in paths]
    if len(stores) == 1:
        return stores[0]
    ids = list(chain.from_iterable(store.ids for store in stores))
    if len(set(ids)) < len(ids):
        ids = [f"{number}/{name}" for number, store in enumerate(stores) for name in store.ids]
    return Store(
        ids,
        list(chain.from_iterable(store.texts for store in stores)),
        list(chain.from_iterable(store.languages for store in stores)),
        np.concatenate([store.lengths for store in stores]),
        rate,
        JoinedReader([store.reader for store in stores], [len(store) for store in stores]),
        ", ".join(store.name for store in stores),
    )
