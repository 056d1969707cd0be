"""CoNLL-2003 results that runs are compared with: "BERT", section 5.3, table 7."""

from __future__ import annotations

PUBLISHED_CONLL: tuple[tuple[str, float | None, float | None], ...] = (
    ("ELMo", 95.7, 92.2),
    ("CVT", None, 92.6),
    ("CSE", None, 93.1),
    ("BERT base, fine-tuned", 96.4, 92.4),
    ("BERT large, fine-tuned", 96.6, 92.8),
    ("BERT base, features of the last layer", 94.9, None),
    ("BERT base, features of the last four layers", 96.1, None),
)
"""System, and F1 in percent on the development and on the test set; None: not reported."""
