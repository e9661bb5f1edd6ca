"""Small models with hand-derived hidden groups and relations.

``MODELS`` has them by name; ``MODELS["gru"].build(jnp.float64)`` gives the model and its example inputs.
"""

from . import brainscale_models, operators, recurrent, spiking, structure
from .model import MODELS, Expected, Group, Relation, ZooModel, probing

FAMILIES = (spiking, recurrent, structure, operators, brainscale_models)

__all__ = ["FAMILIES", "MODELS", "Expected", "Group", "Relation", "ZooModel", "probing"]
