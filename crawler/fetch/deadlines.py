"""By when what must have come, in one exchange. Pure: times in, the nearest deadline and its word out."""

from crawler.core.enums import ErrorType
from crawler.fetch.options import FetchOptions


def next_deadline(
    options: FetchOptions, *, sent: float, first: float, last: float, received: int, held_up_s: float
) -> tuple[float, ErrorType]:
    """The first of the deadlines that hold now, on the monotonic clock, and what missing it is called.

    `sent` is when the request was written, `first` when the first byte came (0.0: none yet), `last` when the latest
    did, `received` how many. `held_up_s` is for how long we did not read: that much is not the server's fault.
    """
    when, error_type = sent + held_up_s + options.total_timeout_s, ErrorType.TOTAL_TIMEOUT
    if first == 0.0:
        if sent + options.first_byte_timeout_s < when:
            return sent + options.first_byte_timeout_s, ErrorType.FIRST_BYTE_TIMEOUT
        return when, error_type
    if last + options.read_timeout_s < when:
        when, error_type = last + options.read_timeout_s, ErrorType.READ_TIMEOUT
    if options.min_rate:
        # the moment the average falls below the limit if not a byte more comes
        too_slow = first + held_up_s + max(options.min_rate_after_s, received / options.min_rate)
        if too_slow < when:
            when, error_type = too_slow, ErrorType.TOO_SLOW
    return when, error_type
