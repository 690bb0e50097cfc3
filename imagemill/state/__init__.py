"""What all workers share in Redis: the journal of a build, an image's lock, and what is known of
sources.
"""
