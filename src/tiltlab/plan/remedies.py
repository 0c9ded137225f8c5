"""What would make a plan fit: changes to a recipe, the ones that cost least first."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from tiltlab.plan import memory
from tiltlab.plan.cards import CARDS, card
from tiltlab.plan.shapes import Ask, Counted, Device, Phase


@dataclass(frozen=True)
class Case:
    """A model, what is asked of it, and the device that it is to fit.

    with_adapters: makes the same model with adapters.
    """

    model: Counted
    ask: Ask
    device: Device
    with_adapters: Callable[[], Counted]

    @cached_property
    def settled(self) -> Ask:
        """What is asked, with what is left to the device decided."""
        return replace(self.ask, checkpointing=memory.checkpointing(self.model, self.ask, self.device))

    @cached_property
    def rollout(self) -> Phase:
        """What is held while responses are drawn."""
        return memory.rollout(self.model, self.ask, self.device)

    @cached_property
    def update(self) -> Phase:
        """What is held while weights are updated."""
        return memory.update(self.model, self.settled)

    @property
    def fits(self) -> bool:
        """Whether both phases do. Activations are counted last, and not at all where there is no room for the rest."""
        usable = self.device.usable
        if memory.without_activations(self.model.shape, self.ask) > usable:
            return False
        return self.rollout.total() <= usable and self.update.total() <= usable


Change = tuple[str, Case]
"""How a recipe is to be changed, as --set takes it, and what it then comes to."""


def remedies(case: Case) -> list[str]:
    """Changes that make a case fit which does not, each by itself, as options; the first costs least.

    Where none does by itself, the fewest that do together. Then, on a GPU, what takes more or larger ones.
    """
    for count in range(1, len(_CHANGES) + 1):
        found = []
        for chosen in combinations(_CHANGES, count):
            changed = _all(case, chosen)
            if changed and changed[1].fits:
                found.append(" ".join(f"--set {one}" for one in changed[0]))
        if found:
            break
    if not case.device.is_gpu:
        return found
    several = [ranks for ranks in (2, 4, 8) if ranks > case.ask.ranks and not case.ask.alone and _on(case, ranks).fits]
    larger = [name for name in CARDS if on_device(case, card(name)).fits and card(name).usable > case.device.usable]
    return found + [f"--set gpus={ranks}" for ranks in several[:1]] + [f"--gpu {name}" for name in larger]


def _on(case: Case, ranks: int) -> Case:
    return Case(case.model, replace(case.ask, ranks=ranks), case.device, case.with_adapters)


def on_device(case: Case, device: Device) -> Case:
    """The same on another device."""
    return Case(case.model, case.ask, device, case.with_adapters)


def _all(case: Case, changes: tuple[Callable[[Case], Change | None], ...]) -> tuple[list[str], Case] | None:
    """All of these changes, one after the other; None where one has nothing to change."""
    said = []
    for change in changes:
        changed = change(case)
        if changed is None:
            return None
        said.append(changed[0])
        case = changed[1]
    return said, case


def _asking(case: Case, said: str, ask: Ask) -> Change:
    return said, Case(case.model, ask, case.device, case.with_adapters)


def _one_group(case: Case) -> Change | None:
    """A group is never split."""
    batch = case.ask.micro_batch
    if batch.groups == 1:
        return None
    tokens = batch.responses * batch.tokens
    return _asking(case, f"train.micro_batch_tokens={tokens}", replace(case.ask, micro_batch_tokens=tokens))


def _fewer_rows(case: Case) -> Change | None:
    ask = case.ask
    if ask.engine != "hf" or ask.batch_tokens is None or case.rollout.total() <= case.device.usable:
        return None
    standing = memory.standing(case.model.shape, ask)
    rows = memory.rows_side_by_side(case.model, replace(ask, batch_tokens=None), case.device.usable - standing)
    tokens = rows * memory.longest(ask)
    return _asking(case, f"model.batch_tokens={tokens}", replace(ask, batch_tokens=tokens))


def _checkpointing(case: Case) -> Change | None:
    if case.settled.checkpointing:
        return None
    return _asking(case, "model.checkpointing=true", replace(case.ask, checkpointing=True))


def _smaller_engine(case: Case) -> Change | None:
    ask, device = case.ask, case.device
    if ask.engine != "vllm" or ask.apart:
        return None
    room = device.usable - memory.standing(case.model.shape, ask)
    share = int(20 * room / device.memory) / 20  # twentieths
    needed = case.model.shape.weights / device.memory
    if not needed < share < ask.engine_share:
        return None
    return _asking(case, f"engine.memory={share:g}", replace(ask, engine_share=share))


def _host(case: Case) -> Change | None:
    if case.ask.state != "device":
        return None
    return _asking(case, "train.optimizer.state=host", replace(case.ask, state="host"))


def _eight_bits(case: Case) -> Change | None:
    if case.ask.state != "device":
        return None
    return _asking(case, "train.optimizer.state=8bit", replace(case.ask, state="8bit"))


def _adapters(case: Case) -> Change | None:
    if case.model.shape.adapters:
        return None
    model = case.with_adapters()
    said = "model.lora={rank: 16, alpha: 32}"
    return f"'{said}'", Case(model, replace(case.ask, reference=False), case.device, case.with_adapters)


def _smaller_groups(case: Case) -> Change | None:
    """Half as many responses to a prompt, a quarter, ... at least 2: a group is never split."""
    given = case.ask.batch
    fewer = [given.responses >> halvings for halvings in range(1, 17) if given.responses >> halvings >= 2]
    changed = None
    for responses in fewer:
        tokens = responses * given.tokens
        ask = replace(case.ask, batch=replace(given, responses=responses), micro_batch_tokens=tokens)
        said = f"train.responses={responses} --set train.micro_batch_tokens={tokens}"
        changed = _asking(case, said, ask)
        if changed[1].fits:
            break
    return changed


_CHANGES: tuple[Callable[[Case], Change | None], ...] = (
    _one_group,
    _fewer_rows,
    _checkpointing,
    _smaller_engine,
    _host,
    _eight_bits,
    _adapters,
    _smaller_groups,
)
"""The ones that cost least first: nothing, time, memory elsewhere, precision, another way to train, a
louder gradient."""
