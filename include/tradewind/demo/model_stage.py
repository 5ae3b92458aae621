"""Train, validate, and let the gates decide whether a first champion stands."""

from __future__ import annotations

from .run import DemoRun

_MODELS = "SELECT version, state, manifest, trained_from, trained_until FROM models ORDER BY created_at DESC"
_GATES = "SELECT gate, passed, numbers FROM model_gates WHERE version = %s ORDER BY gate"


def train_models(demo: DemoRun) -> bool:
    """One honest training by the DAG `retrain_models`; returns whether a champion stands.

    It is not repeated until one passes: trying again until luck helps is what the gates are there to prevent.
    """
    demo.run_dag("retrain_models", {"reason": "demo"}, timeout_s=1200)
    models = demo.wiring.database.rows(_MODELS)
    demo.require(bool(models), "retrain_models succeeded but stored no model version")
    champion = next((model for model in models if model["state"] == "champion"), None)
    demo.summary["models"] = len(models)
    demo.summary["champion"] = champion["version"] if champion else None
    demo.summary["model_versions"] = [
        {
            "version": model["version"],
            "state": model["state"],
            "trained_from": model["trained_from"].isoformat(),
            "trained_until": model["trained_until"].isoformat(),
            "metrics": model["manifest"].get("metrics", {}),
            "gates": demo.wiring.database.rows(_GATES, (model["version"],)),
        }
        for model in models
    ]
    for gate in demo.summary["model_versions"][0]["gates"]:
        mark = "[green]passed[/green]" if gate["passed"] else "[yellow]refused[/yellow]"
        demo.say(f"gate {gate['gate']}: {mark} {_brief(gate['numbers'])}")
    demo.say(f"champion {champion['version']}" if champion else "no champion: nothing may trade")
    demo.require(
        champion is not None or not demo.is_shipped,
        "no challenger passed its gates, though on this market one does with the shipped strategy: see the gates above",
    )
    return champion is not None


def _brief(numbers: dict[str, object]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(numbers.items())[:5])
