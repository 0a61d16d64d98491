"""This package beside what users glue together today: accuracy, time to fit, latency, size."""
