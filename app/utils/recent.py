"""What was made and may be wanted again soon, in so much memory and no more."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from attrs import define, field

_T = TypeVar("_T")


@define(eq=False, repr=False)
class Recent(Generic[_T]):
    """The last ones that were used, of at most ``most`` bytes together. For any thread: what takes long is
    made beside the event loop."""

    _most: int
    _size: int = field(init=False, default=0)
    _found: OrderedDict[bytes, tuple[_T, int]] = field(init=False, factory=OrderedDict)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, key: bytes) -> bool:
        return key in self._found

    def get(self, key: bytes) -> _T | None:
        with self._lock:
            found = self._found.get(key)
            if found is None:
                return None
            self._found.move_to_end(key)
            return found[0]

    def keep(self, key: bytes, value: _T, size: int) -> None:
        """``size``: bytes that it takes. What is larger than all may be is not kept."""
        if size > self._most:
            return
        with self._lock:
            _, before = self._found.pop(key, (None, 0))
            self._found[key] = value, size
            self._size += size - before
            while self._size > self._most:
                _, (_, freed) = self._found.popitem(last=False)
                self._size -= freed
