"""Several hosts as one: where this one stands, who is there, what to do when one is lost.

Nothing here imports JAX, so that what watches over a run costs nothing itself.
"""
