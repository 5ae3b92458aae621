"""What the DAGs call: load, decide with core, save. One function a DAG or task, named like it."""
