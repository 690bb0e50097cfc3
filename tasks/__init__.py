"""The chain: one Celery task per step, in the steps' own names. `pipeline` wires them, `step`
decorates them.
"""
