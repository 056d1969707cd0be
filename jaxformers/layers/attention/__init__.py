"""Multi-head attention, its masks, and the back-ends that compute it.

May import from the layers below it (linear, dropout, execution), never from blocks or stacks.
"""
