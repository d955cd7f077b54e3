"""A job's report: what all its targets' evaluations say together, for programs (report.json) and people (report.html)."""
