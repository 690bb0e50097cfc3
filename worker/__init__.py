"""The worker process: the Celery application and its settings. Nothing imports this but the process
itself.
"""
