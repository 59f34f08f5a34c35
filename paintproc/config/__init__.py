"""Every setting, declared once: frozen dataclasses whose fields carry their help text.

Only the standard library is imported here, so that `--help` stays fast.
"""
