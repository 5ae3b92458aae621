"""The registry of models: immutable versions, their files under a URL, their states, gates and history in PostgreSQL.

::

    save ──► challenger ──promote──► champion ──(another is promoted)──► retired
                                        ▲                                   │
                                        └───────────── rollback ────────────┘

At most one version is champion; the transaction that promotes retires the former one. Every change is an event with the
name of who made it. The manifest in the database is the truth that files are verified against.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import fsspec
from psycopg.types.json import Jsonb

from tradewind.adapters.database import Connection, Database
from tradewind.adapters.model_artifacts import canonical_json, family_files, load_family, sha256_of
from tradewind.adapters.model_check import try_model
from tradewind.core.ensemble import FamilyModel, LoadedModel
from tradewind.core.features import FEATURE_NAMES, features_hash
from tradewind.core.types import RegimeFamily
from tradewind.core.validation import Gate
from tradewind.errors import BadInput, ModelUnavailable
from tradewind.fingerprint import are_our_formulas

_INSERT_MODEL = """
    INSERT INTO models (version, state, manifest, artifact_url, trained_from, trained_until, created_at)
    VALUES (%(version)s, 'challenger', %(manifest)s, %(url)s, %(trained_from)s, %(trained_until)s, %(at)s)
    ON CONFLICT DO NOTHING"""
_INSERT_GATE = """
    INSERT INTO model_gates (version, gate, passed, numbers) VALUES (%(version)s, %(gate)s, %(passed)s, %(numbers)s)
    ON CONFLICT DO NOTHING"""
_INSERT_EVENT = """
    INSERT INTO model_events (version, event, actor, detail, at)
    VALUES (%(version)s, %(event)s, %(actor)s, %(detail)s, %(at)s)"""
_CHAMPION = "SELECT version FROM models WHERE state = 'champion'"
_MODEL = """
    SELECT version, state, manifest, artifact_url, trained_from, trained_until, created_at
    FROM models WHERE version = %(version)s"""
_MODELS = """
    SELECT version, state, manifest, artifact_url, trained_from, trained_until, created_at
    FROM models ORDER BY created_at DESC, version"""
_TRIALS = "SELECT coalesce(sum(coalesce((manifest ->> 'trials')::int, 1)), 0)::int AS tried FROM models"
_DECIDING = """
    SELECT version, trained_until, created_at FROM models m
    WHERE trained_until < %(end)s AND EXISTS (SELECT FROM model_gates g WHERE g.version = m.version)
        AND NOT EXISTS (SELECT FROM model_gates g WHERE g.version = m.version AND NOT g.passed)
    ORDER BY trained_until, created_at"""
_GATES = "SELECT gate, passed, numbers FROM model_gates WHERE version = %(version)s ORDER BY gate"
_EVENTS = "SELECT event, actor, detail, at FROM model_events WHERE version = %(version)s ORDER BY event_id"
# Serialises promotions: two at once would otherwise both see no champion.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('tradewind.models'))"
_RETIRE = "UPDATE models SET state = 'retired' WHERE state = 'champion' AND version <> %(version)s RETURNING version"
_CROWN = "UPDATE models SET state = 'champion' WHERE version = %(version)s AND state <> 'champion'"
_FORMER = """
    SELECT e.version FROM model_events e JOIN models m USING (version)
    WHERE e.event IN ('promoted', 'rolled_back_to') AND m.state = 'retired'
    ORDER BY e.event_id DESC LIMIT 1"""
_START_RUN = """
    INSERT INTO training_runs (run_id, reason, state, report, started_at)
    VALUES (%(run_id)s, %(reason)s, 'running', '{}', %(at)s)
    ON CONFLICT (run_id) DO UPDATE SET state = 'running', finished_at = NULL"""
_FINISH_RUN = """
    UPDATE training_runs SET state = %(state)s, report = %(report)s, finished_at = %(at)s WHERE run_id = %(run_id)s"""
_INSERT_DRIFT = """
    INSERT INTO drift_reports (at, version, alarmed, report) VALUES (%(at)s, %(version)s, %(alarmed)s, %(report)s)
    ON CONFLICT (at) DO NOTHING"""

# A family's booster takes some megabytes.
_MAX_FILE_BYTES = 128_000_000
# As `model_artifacts` writes them: never a way out of the version's own directory.
_FILE_NAME = re.compile(r"(?:[a-z]+/)?[a-z]+\.[a-z]+")


class PgModelStore:
    """`ports.ModelStore`: rows through `database`, files under `url` (any fsspec URL; `file://` by default)."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url.rstrip("/")
        self._loaded: LoadedModel | None = None

    # -------------------------------------------------------------------------------------------------------- serving
    def champion(self) -> LoadedModel | None:
        """The champion, verified and kept for the process; one small query tells whether it is still the one.

        None when there is none. Raises ModelUnavailable when a file is missing or differs from the manifest, or the
        model was trained on other features than the code computes.
        """
        row = self._database.row(_CHAMPION)
        if row is None:
            self._loaded = None
        elif self._loaded is None or self._loaded.version != row["version"]:
            self._loaded = self.load(row["version"])
        return self._loaded

    def load(self, version: str) -> LoadedModel:
        """Any version, verified against its manifest. Raises ModelUnavailable or BadInput (unknown version)."""
        row = self._row(version)
        manifest = row["manifest"]
        if manifest.get("features_hash") != features_hash():
            raise ModelUnavailable(
                f"model {version} was trained on other features than this code computes: train again"
            )
        if "formulas_sha256" in manifest and not are_our_formulas(manifest["formulas_sha256"]):
            raise ModelUnavailable(
                f"model {version} was trained on features of the same names, computed otherwise: train again"
            )
        files = self._files(row)
        families = {RegimeFamily(name): load_family(RegimeFamily(name), files) for name in manifest["families"]}
        return LoadedModel(version, row["trained_until"], FEATURE_NAMES, families)

    def reference(self, version: str) -> dict[str, Any]:
        """The training distribution of each feature, as saved with the version."""
        row = self._row(version)
        sha = row["manifest"]["files"]["reference.json"]
        content: dict[str, Any] = json.loads(self._verified(row["artifact_url"], "reference.json", sha))
        return content

    def _files(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Every file of a version, verified."""
        named = row["manifest"]["files"].items()
        if strange := [name for name, _ in named if not _FILE_NAME.fullmatch(name)]:
            raise ModelUnavailable(f"model {row['version']} names a file {strange[0][:80]!r}: it is no model of ours")
        return {name: self._verified(row["artifact_url"], name, sha) for name, sha in named}

    def _try(self, row: Mapping[str, Any]) -> None:
        """Load a version elsewhere, before it may decide anything here. Raises ModelUnavailable."""
        try_model(row["version"], self._files(row), list(row["manifest"]["families"]), len(FEATURE_NAMES))

    def _verified(self, url: str, name: str, sha256: str) -> bytes:
        try:
            with fsspec.open(f"{url}/{name}", "rb") as stream:
                content: bytes = stream.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ModelUnavailable(f"{url}/{name} cannot be read ({error}): restore it, or roll back") from error
        if len(content) > _MAX_FILE_BYTES:
            raise ModelUnavailable(f"{url}/{name} is larger than {_MAX_FILE_BYTES:,} bytes: it is no model of ours")
        if sha256_of(content) != sha256:
            raise ModelUnavailable(f"{url}/{name} differs from its manifest: restore it, or roll back")
        return content

    # --------------------------------------------------------------------------------------------------------- saving
    def save(
        self,
        version: str,
        families: Mapping[RegimeFamily, FamilyModel],
        reference: Mapping[str, Any],
        manifest: Mapping[str, Any],
        gates: Sequence[Gate],
        *,
        trained_from: datetime,
        trained_until: datetime,
        at: datetime,
    ) -> dict[str, Any]:
        """Write the files, then the row, as a challenger; returns the manifest as stored. A known version stays as is.

        `manifest` says what the caller knows; the names and hashes of the files are added here.
        """
        known = self._database.row(_MODEL, {"version": version})
        if known is not None:
            stored: dict[str, Any] = known["manifest"]
            return stored
        files = {"reference.json": canonical_json(dict(reference))}
        for model in families.values():
            files |= family_files(model)
        whole = {**manifest, "version": version, "files": {name: sha256_of(c) for name, c in sorted(files.items())}}
        url = f"{self._url}/{version}"
        filesystem, path = fsspec.core.url_to_fs(url)
        for name, content in [*files.items(), ("manifest.json", canonical_json(whole))]:
            target = f"{path}/{name}"
            filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            with filesystem.open(target, "wb") as stream:
                stream.write(content)
        with self._database.transaction() as connection:
            connection.execute(
                _INSERT_MODEL,
                {
                    "version": version,
                    "manifest": Jsonb(whole),
                    "url": url,
                    "trained_from": trained_from,
                    "trained_until": trained_until,
                    "at": at,
                },
            )
            for gate in gates:
                numbers = Jsonb(gate.numbers)
                connection.execute(
                    _INSERT_GATE, {"version": version, "gate": gate.name, "passed": gate.passed, "numbers": numbers}
                )
            _event(connection, version, "saved", "training", {}, at)
        return whole

    # --------------------------------------------------------------------------------------------------------- states
    def promote(self, version: str, actor: str, at: datetime, **detail: Any) -> None:
        """Make a version the champion and retire the former one, in one transaction.

        Raises BadInput for an unknown version, one without gates, or one that failed a gate: those do not trade; and
        ModelUnavailable for one whose files are not as saved, or cannot be loaded in a process of its own.
        """
        row = self._row(version)
        gates = self._database.rows(_GATES, {"version": version})
        failed = [gate["gate"] for gate in gates if not gate["passed"]]
        if failed or not gates:
            raise BadInput(f"model {version} may not trade: {', '.join(failed) or 'it was never judged'}")
        self._try(row)
        self._crown(version, "promoted", actor, at, detail)

    def roll_back(self, actor: str, at: datetime) -> str:
        """Make the version that was champion before the present one champion again; returns it.

        Raises BadInput when there is none, ModelUnavailable when it cannot be loaded any more.
        """
        row = self._database.row(_FORMER)
        if row is None:
            raise BadInput("no former champion to roll back to: see ./tradewind models list")
        version: str = row["version"]
        self._try(self._row(version))
        self._crown(version, "rolled_back_to", actor, at, {})
        return version

    def _crown(self, version: str, event: str, actor: str, at: datetime, detail: Mapping[str, Any]) -> None:
        with self._database.transaction() as connection:
            connection.execute(_LOCK)
            retired = connection.execute(_RETIRE, {"version": version}).fetchall()
            crowned = connection.execute(_CROWN, {"version": version}).rowcount
            for row in retired:
                _event(connection, row["version"], "retired", actor, {"by": version}, at)
            if crowned:
                _event(connection, version, event, actor, detail, at)

    def versions(self) -> list[dict[str, Any]]:
        """All versions, newest first, each with its gates."""
        rows = self._database.rows(_MODELS)
        return [{**row, "gates": self._database.rows(_GATES, {"version": row["version"]})} for row in rows]

    def version(self, version: str) -> dict[str, Any]:
        """One version with its gates and events. Raises BadInput for an unknown one."""
        bound = {"version": version}
        row = self._row(version)
        return {**row, "gates": self._database.rows(_GATES, bound), "events": self._database.rows(_EVENTS, bound)}

    def deciding(self, end: datetime) -> list[dict[str, Any]]:
        """Versions that could decide before `end` without knowing what comes: version, trained_until, created_at.

        Those whose data end before `end` and that passed every gate, oldest data first.
        """
        return self._database.rows(_DECIDING, {"end": end})

    def has_version(self, version: str) -> bool:
        return self._database.row(_MODEL, {"version": version}) is not None

    def trials(self) -> int:
        """How many settings were tried by all versions stored so far, each version itself counting one."""
        row = self._database.row(_TRIALS)
        return int(row["tried"]) if row else 0

    def _row(self, version: str) -> dict[str, Any]:
        row = self._database.row(_MODEL, {"version": version})
        if row is None:
            raise BadInput(f"model {version} is not known: see ./tradewind models list")
        return row

    # ----------------------------------------------------------------------------------------------------------- runs
    def start_training(self, run_id: str, reason: str, at: datetime) -> None:
        """Record that a training began."""
        self._database.execute(_START_RUN, {"run_id": run_id, "reason": reason, "at": at})

    def finish_training(self, run_id: str, state: str, report: Mapping[str, Any], at: datetime) -> None:
        """Record how a training ended (`done` or `failed`), with its report."""
        bound = {"run_id": run_id, "state": state, "report": Jsonb(dict(report)), "at": at}
        self._database.execute(_FINISH_RUN, bound)

    def insert_drift(self, at: datetime, version: str, alarmed: bool, report: Mapping[str, Any]) -> None:
        """Store one drift report."""
        bound = {"at": at, "version": version, "alarmed": alarmed, "report": Jsonb(dict(report))}
        self._database.execute(_INSERT_DRIFT, bound)


def _event(
    connection: Connection, version: str, event: str, actor: str, detail: Mapping[str, Any], at: datetime
) -> None:
    connection.execute(
        _INSERT_EVENT, {"version": version, "event": event, "actor": actor, "detail": Jsonb(dict(detail)), "at": at}
    )
