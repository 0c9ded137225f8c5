"""Which rows stand side by side in one forward."""

from collections.abc import Iterator, Sequence

from tiltlab.errors import UserError
from tiltlab.models.engine import Request


def slices(total: int, size: int) -> Iterator[slice]:
    """So many rows, `size` at a time and at least one."""
    for start in range(0, total, max(1, size)):
        yield slice(start, min(start + max(1, size), total))


def lots(requests_N: Sequence[Request], rows: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of rows to draw side by side: those given, in their order, in lots that share a limit and fit.

    requests_N: of all rows.
    rows: the numbers of those that are wanted.
    batch_tokens: how many tokens a lot may hold, each row with its longest possible length; one row may hold more.
    """
    for limit in dict.fromkeys(requests_N[row].limit for row in rows):
        alike = [row for row in rows if requests_N[row].limit == limit]
        longest = max(len(requests_N[row].ids) for row in alike)
        yield from (alike[lot] for lot in slices(len(alike), batch_tokens // (longest + limit)))


def half(requests_N: Sequence[Request], batch_tokens: int) -> int:
    """A `batch_tokens` for half as many rows of these as this one holds. Raises UserError where that is one row."""
    longest = max(len(request.ids) + request.limit for request in requests_N)
    if min(len(requests_N), batch_tokens // longest) <= 1:
        raise UserError(
            f"memory ran out while one response of up to {requests_N[0].limit} tokens was drawn; fewer max_tokens, a "
            "smaller model, train.optimizer.state=host or less beside it on the device may help"
        )
    return min(batch_tokens, len(requests_N) * longest) // 2


def like_lengths(lengths: Sequence[int], batch_tokens: int, prompt: int) -> Iterator[list[int]]:
    """Numbers of rows to score side by side, longest first: at most a quarter of each batch is padding.

    lengths: of the responses, in tokens.
    batch_tokens: how many a batch may hold, prompts and padding included; one row may hold more.
    prompt: tokens of the longest prompt.
    """
    batch: list[int] = []
    held = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch:
            size = len(batch) + 1
            padded = lengths[batch[0]] * size
            if held + lengths[row] < 0.75 * padded or padded + prompt * size > batch_tokens:
                yield batch
                batch, held = [], 0
        batch.append(row)
        held += lengths[row]
    if batch:
        yield batch
