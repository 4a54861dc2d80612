"""structlog, imported without rich.

Its renderer for developers imports rich if that is installed, for tracebacks that nothing here asks for: 50 ms of every
start. Invariant: whoever wants rich afterwards gets it.
"""

import sys
from typing import Final

_KEPT_OUT: Final = "rich" not in sys.modules
if _KEPT_OUT:
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails then, as where it is not installed
try:
    import structlog
    from structlog.typing import EventDict, WrappedLogger
finally:
    if _KEPT_OUT:
        del sys.modules["rich"]

__all__ = ["EventDict", "WrappedLogger", "structlog"]
