"""From examples to batches: order, packing, bucketing, collation, loading, fingerprints.

Nothing here knows a data set; every batch is a pure function of (seed, step).
"""
