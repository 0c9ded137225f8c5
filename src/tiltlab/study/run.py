"""One job of a study: one arm, one task, one seed, from the base model to graded records.

Left out on purpose: comparison. A job knows nothing of the others; what they share (prompts, their order, seeds,
budget) they share by being functions of the same recipe.
"""

import gc
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from tiltlab.config.methods import Base
from tiltlab.engines.make import drawn_by
from tiltlab.errors import Stopped, UserError, brief, said
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_reference, policy_from
from tiltlab.seeds import derive
from tiltlab.storage.files import make_folder, write_json
from tiltlab.storage.folder import cannot_write, is_full
from tiltlab.storage.place import at_work
from tiltlab.study.evaluation import Evaluation
from tiltlab.study.held import decided
from tiltlab.study.job import Work
from tiltlab.study.training import Training
from tiltlab.system.devices import own_number
from tiltlab.system.ranks import RankFailed
from tiltlab.training.advantage import UnsuitableReward
from tiltlab.training.room import REMEDIES


def run_job(work: Work, attempt: Callable[[Work], None] | None = None, devices: Sequence[str] = ()) -> None:
    """Run a job to its end, from wherever an earlier try left it. A job that is done is left alone.

    attempt: how, where this process is not to do it itself (`do_job`).
    devices: of its ranks, where there are several.

    A job that cannot be finished (its gradient is no longer finite, say) leaves failed.json and returns: the others of
    the study are not to suffer for it. Raises Stopped, after saving where it is, once `work.stopping()` says so, and
    UserError for what would stop every job alike, such as a full disk.
    """
    folder = work.folder
    if folder.result.exists():
        return
    make_folder(folder.path)
    folder.failed.unlink(missing_ok=True)
    devices = devices or [work.recipe.model.device]
    with at_work(folder.path, list(dict.fromkeys(map(own_number, devices))), len(devices)):
        _try(work, attempt or do_job)


def _try(work: Work, attempt: Callable[[Work], None]) -> None:
    folder = work.folder
    try:
        attempt(work)
    except (Stopped, UserError):
        raise
    except Exception as error:
        rank = error.rank if isinstance(error, RankFailed) else ""
        cause = error.error if isinstance(error, RankFailed) else error
        if is_full(cause):
            raise cannot_write(folder.path, cause) from error
        lasting = isinstance(cause, FloatingPointError | UnsuitableReward)  # by the recipe: another try ends the same
        told = {"error": rank + _why(cause, lasting), "lasting": lasting, "traceback": traceback.format_exc()}
        write_json(folder.failed, told)


def _why(error: Exception, lasting: bool) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        load_base.cache_clear()  # some of its weights may be on their way from the host or to it
        return f"memory ran out where nothing could be halved ({brief(error, 120)}); {REMEDIES}"
    return brief(error) if lasting else said(error)


def do_job(work: Work) -> None:
    """Do what is left of a job, in this process, or in one of the ranks that all call this.

    Raises Stopped, after saving where it is, once `work.stopping()` says so, and whatever goes wrong.
    """
    gc.collect()  # models of an earlier job, where they hold each other, are to leave their memory to this one
    base, objective = load_base(work.recipe.model), work.job.arm.objective()
    if objective is None:
        with drawn_by(work.recipe.engine, base) as model:
            evaluation = Evaluation(work, model, model)
            evaluation.report("last")
            if isinstance(work.job.arm, Base):
                evaluation.draw_for_forecast()
        work.write(write_json, work.folder.result, {"trained": False, "reference": base.fingerprint()})
        return
    held = decided(work.recipe, base, work.world)
    with (
        policy_from(base, held, derive(work.job.seed, "adapters"), work.world) as (policy, reference),
        drawn_by(work.recipe.engine, policy) as model,
    ):
        Training(work, objective, model, reference).run()


@lru_cache(maxsize=1)
def load_base(config: ModelConfig) -> HFModel:
    """The base model, loaded once a process: jobs copy it, or put adapters on it for as long as they last."""
    reference: HFModel = load_reference(config, load_codec(config))
    return reference
