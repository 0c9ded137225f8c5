"""What can be known without sampling."""

from math import exp

import numpy as np


def tilted_by_binary_reward(accuracy: float, beta: float) -> tuple[float, float]:
    """Accuracy and KL of p exp(r / beta) / Z where r is 1 for correct responses and 0 for others: closed form.

    a e^(1/beta) / (a e^(1/beta) + 1 - a), and a' / beta - log(a e^(1/beta) + 1 - a). Self-normalised weights of samples
    from p come to the same, with a the share of correct ones. 0 and 1 stay where they are.
    """
    log_z = (
        float(np.logaddexp(np.log(accuracy) + 1 / beta, np.log1p(-accuracy))) if 0 < accuracy < 1 else accuracy / beta
    )
    tilted = accuracy * exp(1 / beta - log_z)
    return tilted, tilted / beta - log_z
