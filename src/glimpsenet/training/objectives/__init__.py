"""Localization objectives: how a policy learns where to look. What a policy *is* stands in ``policies/``.

    pathwise           the classification loss, through the sampling of the glimpse (Tan et al. 2021; the report)
    policy gradient    -A_t log pi(a_t),  A_t = r_t - b(o_{t-1})           (Williams 1992; RAM, Mnih et al. 2014)
    value map          (score(a_t) - r_t)^2, whoever chose a_t             (a contextual bandit, epsilon-greedy)
    boxes              -log pi(the window on the box), or its distance     (boxes known; "GlimpseNet", 2017)

An objective is a loss beside the classification loss; r_t is one of ``rewards.py``. Those that lost every comparison
stand where they are compared, in ``bench/contenders.py``.
"""

from glimpsenet.training.objectives.base import Objective
from glimpsenet.training.objectives.boxes import BoxSupervision, distance_to
from glimpsenet.training.objectives.pathwise import Pathwise
from glimpsenet.training.objectives.policy_gradient import PolicyGradient, discounted
from glimpsenet.training.objectives.value_map import ValueMap

__all__ = ["BoxSupervision", "Objective", "Pathwise", "PolicyGradient", "ValueMap", "discounted", "distance_to"]
