"""How arms are spelled, called and refused: votes, answer power, signals, advantages, entropy minimisation."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.config.test_recipe import SMALL
from tiltlab.config.methods import Agreeing, Voted
from tiltlab.config.recipe import Recipe, load_sample_recipe, with_defaults
from tiltlab.config.trained import Trained
from tiltlab.config.votable import require_votable
from tiltlab.errors import UserError
from tiltlab.objective import Objective, entropy_minimization
from tiltlab.samplers.answer_power import AnswerPower
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.tasks.base import Task
from tiltlab.training.advantage import PassK
from tiltlab.types import Problem


def arm(**keys: Any) -> Any:
    return Recipe.model_validate(SMALL | {"arms": [keys]}).arms[0]


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"arm": "task_reward"}, "task reward"),
        ({"arm": "task_reward", "signal": "task"}, "task reward"),
        ({"arm": "task_reward", "signal": "vote"}, "vote"),
        ({"arm": "task_reward", "signal": "random"}, "random reward"),
        ({"arm": "task_reward", "signal": "format"}, "format reward"),
        ({"arm": "tilted", "beta": 0.1, "signal": "vote"}, "tilted 0.1, vote"),
        ({"arm": "objective", "reward": 1, "kl": 0.1, "signal": "format"}, "w=1 s=0 beta=0.1, format reward"),
        ({"arm": "task_reward", "advantage": "maxrl"}, "task reward, maxrl"),
        ({"arm": "task_reward", "advantage": {"passk": 2}}, "task reward, pass@2"),
        ({"arm": "task_reward", "signal": "format", "advantage": "passk(2)"}, "format reward, pass@2"),
        ({"arm": "task_reward", "normalize": True}, "task reward, normalized"),
        ({"arm": "task_reward", "advantage": "group_normalized"}, "task reward, normalized"),
        ({"arm": "entropy_minimization"}, "entropy minimization"),
        ({"arm": "entropy_minimization", "weight": 0.1}, "entropy minimization 0.1"),
        ({"arm": "answer_power"}, "answer power 4"),
    ],
)
def test_arms_are_called_by_what_drives_them(keys: dict[str, Any], name: str) -> None:
    assert arm(**keys).name == name


@pytest.mark.parametrize("kind", [{"arm": "tempered", "alpha": 2}, {"arm": "sharpening"}, {"arm": "tilted", "beta": 1}])
@pytest.mark.parametrize("signal", ["vote", "random", "format"])
def test_every_trained_arm_takes_a_signal(kind: dict[str, Any], signal: str) -> None:
    assert arm(**kind, signal=signal).signal == signal


def test_advantages_are_read_by_either_spelling_and_kept_as_one() -> None:
    found = [arm(arm="task_reward", advantage=spelled) for spelled in ({"passk": 2}, "passk(2)")]
    assert [one.estimator for one in found] == [PassK(2), PassK(2)]
    assert [one.model_dump(mode="json")["advantage"] for one in found] == [{"passk": 2}] * 2
    normalized = [arm(arm="task_reward", **key) for key in ({"normalize": True}, {"advantage": "group_normalized"})]
    assert [one.estimator for one in normalized] == ["group_normalized"] * 2


def test_entropy_minimization_and_answer_power_make_what_they_say() -> None:
    assert arm(arm="entropy_minimization", weight=2).objective() == entropy_minimization(2)
    assert arm(arm="task_reward", signal="vote").objective() == Objective(reward=1)
    assert arm(arm="answer_power", g=3, budget=9).sampler() == AnswerPower(3, 9)
    keys = {"moves": 2, "block": 8, "temperature": 0.5}
    assert arm(arm="power_smc", **keys).sampler() == PowerSMC(**keys)
    assert load_sample_recipe(None, ["sampler={arm: answer_power, g: 2}"]).sampler.sampler() == AnswerPower(2)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"arm": "answer_power", "g": 0}, "g must be a whole number of at least 1, got 0"),
        ({"arm": "answer_power", "g": 2.5}, "valid integer"),
        ({"arm": "power_smc", "moves": -1}, "moves must not be negative, got -1"),
        ({"arm": "power_smc", "block": 0}, "block must be at least 1, got 0"),
        ({"arm": "power_smc", "temperature": 0}, "temperature must be above 0, got 0"),
        ({"arm": "answer_power", "g": 8, "budget": 4}, "budget must be at least g = 8"),
        ({"arm": "task_reward", "signal": "votes"}, "'task', 'vote', 'random' or 'format'"),
        ({"arm": "task_reward", "advantage": "passk"}, "write leave_one_out, maxrl, {passk: 4}"),
        ({"arm": "task_reward", "advantage": {"passk": 0}}, "passk must be at least 1, got 0"),
        ({"arm": "task_reward", "advantage": {"passk": True}}, "write leave_one_out"),
        ({"arm": "task_reward", "advantage": {"passk": 2, "x": 1}}, "write leave_one_out"),
        ({"arm": "task_reward", "advantage": {"passk": 99}}, "needs train.responses of at least 99"),
        ({"arm": "task_reward", "advantage": "passk(2)", "signal": "vote"}, "shares where answers tie"),
        ({"arm": "tempered", "alpha": 2, "advantage": "maxrl"}, "maxrl is told from the reward, and this arm has none"),
        ({"arm": "task_reward", "normalize": True, "advantage": "maxrl"}, "take one advantage"),
        ({"arm": "entropy_minimization", "weight": -1}, "must be finite and above 0"),
        ({"arm": "entropy_minimization", "length": "mean"}, "leave `length` out"),
        ({"arm": "objective", "sharpen": 1, "kl": -1}, "must not be negative"),
    ],
)
def test_what_makes_no_arm_is_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        arm(**keys)
    assert says in str(caught.value)


def test_a_recipe_that_was_kept_before_there_were_signals_is_the_same_recipe() -> None:
    now = Recipe.model_validate(SMALL).model_dump(mode="json")
    before = now | {"arms": [{k: v for k, v in one.items() if k not in ("signal", "advantage")} for one in now["arms"]]}
    assert any(isinstance(one, Trained) for one in Recipe.model_validate(SMALL).arms)
    assert before != now == with_defaults(Recipe, before)


@dataclass(frozen=True)
class Named:
    name: str = "essays"


def test_answers_in_free_text_are_not_voted_on() -> None:
    task, arms = cast(Task, Named()), [Agreeing(arm="answer_power"), Voted(arm="majority"), arm(arm="sharpening")]
    prose = Problem("1", "why?", "because the river rises in spring and then takes the lower fields with it")
    with pytest.raises(UserError, match="task essays are free text.*leave out answer power 4, majority of 16, or"):
        require_votable(task, [prose], arms)
    require_votable(task, [prose], arms[2:])
    require_votable(task, [prose, Problem("2", "?", "7"), Problem("3", "?", "New York City")], arms)
    with pytest.raises(UserError, match="leave out vote"):
        require_votable(task, [prose], [arm(arm="task_reward", signal="vote")])
