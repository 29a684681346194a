"""Helpers of the KALAVAI book: chapters ask questions, this package answers them.

The modules are nouns with one job each; ``import kalavai_helpers`` itself is cheap because
nothing heavy (torch, transformers, plotly) is imported until a module that needs it is.
"""

__version__ = "0.1.0"
