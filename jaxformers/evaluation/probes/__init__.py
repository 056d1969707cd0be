"""Classifiers on frozen features: linear probes and nearest neighbours.

Imports `sharding` and the metrics of `evaluation`.
"""
