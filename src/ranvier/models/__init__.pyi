from .alif_stp import ALIF_STPExpCu_Dense_Layer as ALIF_STPExpCu_Dense_Layer
from .alif_stp import alif_stp as alif_stp
