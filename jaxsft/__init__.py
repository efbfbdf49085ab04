"""jaxsft: supervised fine-tuning of Transformers in JAX."""

__version__ = "0.1.0"
