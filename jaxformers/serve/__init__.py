"""A local page on which a person tries loaded models; `page` needs Gradio (the extra `serve`).

Imports `api` and all rooms below it; `cli` imports it.
"""
