"""A job's report: what the evaluations of all its targets say together.

report.json is for programs (`schema` says what it holds), report.html for people.
"""
