"""J itself, by enumeration."""

from torch import Tensor

from tiltlab.models.table import TableLanguage, sequence_lengths
from tiltlab.objective import Objective


def expected_objective(
    objective: Objective, policy: TableLanguage, reference: TableLanguage, rewards_PS: Tensor
) -> Tensor:
    """J(pi), averaged over prompts, by enumeration; differentiable in the policy's logits. A scalar, in nats."""
    policy_PS, logp_PS = policy.sequence_logprobs(), reference.sequence_logprobs().detach()
    score_PS: Tensor = objective.score(rewards_PS, logp_PS, policy_PS, sequence_lengths(reference))
    return (policy_PS.exp() * score_PS).sum(-1).mean()
