"""Models and data: downloaded, rendered, trained here, or part of the standard."""
