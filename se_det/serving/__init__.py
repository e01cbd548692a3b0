"""Detections over HTTP. `app` and `server` need the extra `serve`; all else is plain Python and testable without."""
