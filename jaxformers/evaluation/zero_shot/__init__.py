"""Class names and prompt templates of zero-shot classification; imports errors and files alone."""

from jaxformers.evaluation.zero_shot.class_prompts import (
    ClassPrompts,
    bundled_prompts,
    load_class_prompts,
)

__all__ = ["ClassPrompts", "bundled_prompts", "load_class_prompts"]
