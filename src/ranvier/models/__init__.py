"""Example models. Each factory returns ``(model, *example_inputs)``, ready for every entry point.

They are imported on first use: the ALIF network needs brainpy, from the extra ``models``.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
