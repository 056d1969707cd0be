"""The landmark Transformers in JAX: proven against their references, shardable, practical."""

__version__ = "0.1.0"
