"""One response as a file of another program tells of it, before it is matched to a problem and graded.

Left out on purpose: what a file does not say. It is None, NaN or empty here, and nothing is made up for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan


@dataclass(frozen=True, slots=True)
class Sample:
    """One response.

    where: what messages call its row.
    text: of the response; None where the row holds none (a request that failed).
    prompt: as text; empty where the file does not say it.
    problem: its id in the file; empty where there is none.
    task: as the file calls it; empty where it does not.
    number: of the response among the problem's; None: they are counted in order.
    complete: whether it came to an end of its own; None where nobody knows.
    tokens: how many; 0 where nobody knows.
    logp, ref_logp: of the response under the model that drew it and under the reference, in nats; NaN where not known.
    grades: by name, what the file thinks of it: 1 is right and 0 is wrong; NaN where it has no grade.
    answer: what the file read; None where it says nothing.
    unread: whether the file says that it read no answer.
    gold: the gold answer; empty where the file does not say it.
    step: of training, when it was drawn; None where the file does not say.
    ids: its tokens, where the file has them.
    """

    where: str
    text: str | None
    prompt: str = ""
    problem: str = ""
    task: str = ""
    number: int | None = None
    complete: bool | None = None
    tokens: int = 0
    logp: float = nan
    ref_logp: float = nan
    grades: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None
    unread: bool = False
    gold: str = ""
    step: int | None = None
    ids: tuple[int, ...] = ()
