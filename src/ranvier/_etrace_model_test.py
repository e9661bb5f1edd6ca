"""The example model of brainscale's guide to IR analysis, under the module that the guide imports it from."""

from .models import ALIF_STPExpCu_Dense_Layer as ALIF_STPExpCu_Dense_Layer
