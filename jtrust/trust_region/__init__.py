"""The mathematics of a trust region in the space of distributions.

Nothing here knows of reinforcement learning: a distribution is a function of parameters, and the
distance is the mean KL divergence.
"""

from jtrust.trust_region.conjugate_gradient import conjugate_gradient
from jtrust.trust_region.constrained_step import (
    MOST_CONSTRAINTS,
    ConstrainedStep,
    constrained_step,
)
from jtrust.trust_region.fisher import (
    fisher_operator,
    fisher_vector_product,
    in_state_blocks,
    max_over,
    mean_over,
)
from jtrust.trust_region.line_search import LineSearch, backtracking_line_search
from jtrust.trust_region.projections import PROJECTIONS, Projection, project

__all__ = [
    "MOST_CONSTRAINTS",
    "PROJECTIONS",
    "ConstrainedStep",
    "LineSearch",
    "Projection",
    "backtracking_line_search",
    "conjugate_gradient",
    "constrained_step",
    "fisher_operator",
    "fisher_vector_product",
    "in_state_blocks",
    "max_over",
    "mean_over",
    "project",
]
