"""Where the library meets Airflow: assets, pools, defaults, triggers and the runtime of a task.

Nothing else in the library imports Airflow, and nothing here decides anything: a DAG file says when, a job says what.
DAG files are parsed every few seconds, so the modules they import at the top (`assets`, `defaults`, `sensors`) import
`airflow.sdk` alone; `runtime` is imported inside tasks.
"""
