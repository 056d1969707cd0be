"""Tasks over images: classification and masked autoencoding.

Imports `tasks.base` and the shared files beside it.
"""
