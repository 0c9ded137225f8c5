"""Samples laid out for importance weights: one row a problem, and the distribution that each sample came from. Pure.

Left out on purpose: scoring. Whoever drew at several temperatures must bring log q of each sample under each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from tiltlab.errors import UserError
from tiltlab.types import UNKNOWN, Record

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]

FEWEST = 4
"""Samples of a problem: one with fewer is left out of a forecast."""


@dataclass(frozen=True)
class WeightedSamples:
    """Samples of every problem, [P, N] where nothing else is said; shorter rows are padded.

    logp: log p(y | x) under the base, summed over the response, in nats.
    log_q: log-density of the distribution that the sample came from, in nats, up to a constant a problem.
    reward: as it was given; 0 where the sample is not used.
    correct: 1.0 or 0.0.
    length: in tokens.
    counted: whether a sample was drawn; False where a row is padded.
    used: whether it is complete and graded; the others weigh nothing, so that p is the distribution of complete
    responses.
    proposal: number of the proposal that drew it; where there are several, log_q is the log-density of their mixture.
    unit: samples of a problem with the same number came together (a population), and are no more than one.
    response: number of the response among those of its problem: samples with the same number are the same text.
    problems: their names, [P].
    truncated, ungraded: how many samples are not used, being prefixes, or having no grade.
    """

    logp: Floats
    log_q: Floats
    reward: Floats
    correct: Floats
    length: Floats
    counted: Bools
    used: Bools
    proposal: Ints
    unit: Ints
    response: Ints
    problems: tuple[str, ...]
    truncated: int = 0
    ungraded: int = 0


def from_records(
    records: Sequence[Record],
    log_q: ArrayLike | None = None,
    proposal: ArrayLike | None = None,
    unit: ArrayLike | None = None,
) -> WeightedSamples:
    """Records of any number of problems, each with the base's log p in `ref_logp`; problems in order of appearance.

    By default the samples were drawn from the base, at temperature 1 and uncut. Else log_q is the log-density of each
    record under the distribution that it was drawn from, [N]; or, with `proposal` (which
    of K drew each record, [N]), under every one of them, [K, N]: they are then combined by the balance heuristic.
    `unit`: number of the population that each record came in, [N].

    Raises UserError where there are no records, or a complete and graded one has no log p or log q.
    """
    if not records:
        raise UserError("forecast: there are no records")
    names = {name: row for row, name in enumerate(dict.fromkeys(record.problem for record in records))}
    row = np.array([names[record.problem] for record in records])
    logp = np.array([record.ref_logp for record in records])
    complete = np.array([record.complete for record in records])
    graded = np.array([record.reason not in UNKNOWN and not isnan(record.reward) for record in records])
    which = np.zeros(len(records), dtype=np.intp) if proposal is None else np.asarray(proposal, dtype=np.intp)
    density = logp if log_q is None else np.asarray(log_q, dtype=float)
    if density.ndim == 2:
        density = balance(density, which, row)
    _require_known(complete & graded, logp, density)
    used = complete & graded & (logp > -np.inf)
    place = _rank(row)
    flat: dict[str, NDArray[np.generic]] = {
        "logp": np.where(used, logp, 0.0),
        "log_q": np.where(used, density, 0.0),
        "reward": np.array([record.reward if ok else 0.0 for record, ok in zip(records, used, strict=True)]),
        "correct": np.array([float(record.reason == "correct") for record in records]),
        "length": np.array([float(record.tokens) for record in records]),
        "counted": np.ones(len(records), dtype=bool),
        "used": used,
        "proposal": which,
        "unit": place if unit is None else _dense(row, np.asarray(unit)),
        "response": _dense(row, np.array([record.text for record in records], dtype=object)),
    }
    tables: dict[str, Any] = {name: _laid_out(values, row, place) for name, values in flat.items()}
    return WeightedSamples(
        **tables,
        problems=tuple(names),
        truncated=int((~complete).sum()),
        ungraded=int((complete & ~graded).sum()),
    )


def _require_known(needed: Bools, logp: Floats, log_q: Floats) -> None:
    """Raises UserError where a record that is needed lacks one of the two."""
    for name, values in (("log p (ref_logp)", logp), ("log q", log_q)):
        if lost := int((needed & np.isnan(values)).sum()):
            raise UserError(
                f"forecast: {lost} complete records have no {name}; score them under the base: `tiltlab score`"
            )


def _laid_out(values_N: NDArray[np.generic], row_N: Ints, place_N: Ints) -> NDArray[np.generic]:
    """One row a problem, [P, N]; zeros where a problem has fewer samples than another."""
    table = np.zeros((int(row_N.max()) + 1, int(place_N.max()) + 1), dtype=values_N.dtype)
    table[row_N, place_N] = values_N
    return table


def balance(log_q_KN: Floats, proposal_N: Ints, problem_N: Ints) -> Floats:
    """Log-density of the mixture that all samples of a problem came from, [N]: sum over k of (share of k among the
    problem's samples) q_k(y). Weights over it are the balance heuristic (Veach & Guibas 1995): no sample weighs much
    that any proposal draws often.
    """
    drawn_KP = np.zeros((len(log_q_KN), int(problem_N.max()) + 1))
    np.add.at(drawn_KP, (proposal_N, problem_N), 1)
    with np.errstate(divide="ignore"):
        log_share_KP = np.log(drawn_KP / drawn_KP.sum(0))
    mixture: Floats = logsumexp(log_share_KP[:, problem_N] + log_q_KN, axis=0)
    return mixture


def some_problems(samples: WeightedSamples, keep: Bools) -> WeightedSamples:
    """Only the problems in `keep` [P]; the counts of samples not used stay those of all."""
    rows = {name: getattr(samples, name)[keep] for name in _TABLES}
    names = tuple(name for name, kept in zip(samples.problems, keep, strict=True) if kept)
    return WeightedSamples(**rows, problems=names, truncated=samples.truncated, ungraded=samples.ungraded)


_TABLES = ("logp", "log_q", "reward", "correct", "length", "counted", "used", "proposal", "unit", "response")


def _rank(row: Ints) -> Ints:
    """How many earlier entries are the same, for each entry of [N]."""
    seen: dict[int, int] = {}
    ranks = []
    for value in row.tolist():
        ranks.append(seen.get(value, 0))
        seen[value] = ranks[-1] + 1
    return np.array(ranks, dtype=np.intp)


def _dense(row: Ints, unit: NDArray[np.generic]) -> Ints:
    """Units numbered 0, 1, ... in each row."""
    seen: dict[tuple[int, object], int] = {}
    sizes: dict[int, int] = {}
    for key in zip(row.tolist(), unit.tolist(), strict=True):
        if key not in seen:
            seen[key] = sizes.get(key[0], 0)
            sizes[key[0]] = seen[key] + 1
    return np.array([seen[key] for key in zip(row.tolist(), unit.tolist(), strict=True)], dtype=np.intp)
