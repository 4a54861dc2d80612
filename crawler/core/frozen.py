"""`@value`: a frozen, slotted dataclass whose freezing is the type checker's business alone.

A dataclass that is frozen at run time sets each field through `object.__setattr__`: 2.3 µs for one of eight fields
instead of 0.4, and a page makes a dozen. mypy reads the declaration below and refuses every assignment all the same.
"""

from dataclasses import dataclass as _dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen, slots):
        """The standard decorator, for `frozen=True, slots=True`."""
        assert frozen
        return _dataclass(slots=slots, unsafe_hash=True)
