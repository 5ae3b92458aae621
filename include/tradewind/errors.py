"""Every exception of ours, each naming its consequence.

::

    TradewindError
    ├── RetryError                 the same call may succeed later: Airflow retries it with back-off
    │   ├── ExchangeUnreachable        no answer, or a 5xx on a call that changes nothing
    │   ├── ExchangeMaintenance        the exchange or the symbol is halted for now
    │   ├── RateLimited                429 or 418; carries retry_after_s
    │   ├── ClockSkewed                the exchange refused our timestamp
    │   ├── StoreUnavailable           PostgreSQL refused or dropped the connection
    │   ├── LockNotAcquired            another process holds the advisory lock
    │   ├── NotFlatYet                 a flatten has something left to sell or to cancel
    │   ├── ProtectionPending          a stop or an exit could not be placed now; what rested is left
    │   ├── MissingData                bars, features or news that should come but are not here yet
    │   ├── NewsUnavailable            a feed or the scorer did not answer
    │   │   └── NewsBudgetSpent            the paid scorer has used its day's budget
    │   └── ServiceNotReady            a process of the stack did not become healthy in time
    ├── StopError                  repeating changes nothing: a person, or other input, is needed
    │   ├── BadSetting                 a setting is missing or wrong; names it, and gives an example
    │   ├── IdentityMismatch           this database belongs to another deployment
    │   ├── MigrationError             the schema is newer than the code, or a migration was edited
    │   ├── BadCandle                  a bar that cannot be true, with its row
    │   ├── BadInput                   any other argument or file that cannot be used
    │   ├── UnknownSymbol              the exchange does not list it
    │   ├── NotSupported               the exchange or market type cannot do what was asked
    │   ├── AuthenticationFailed       the API key is wrong, or lacks the permission
    │   ├── OrderRejected              the exchange refused the order; carries its code
    │   │   └── InsufficientBalance
    │   ├── TradingHalted              the latch is set: only the reduction of risk is allowed
    │   ├── ModelUnavailable           no champion, or an artefact that does not match its manifest
    │   ├── PortTaken                  another program listens where we would
    │   ├── AlreadyRunning             another supervisor or command holds the home directory
    │   └── StackFailed                a process of the stack cannot run at all
    └── ReconcileError             nobody knows what happened: look it up before doing anything else
        ├── OutcomeUnknown             an order was sent and no answer came; carries the client order id
        └── LedgerMismatch             the exchange and our ledger disagree

Whoever catches one of the three branches knows what to do without knowing the leaf.
No message may hold a secret: pass names of settings, never their values.
"""

from __future__ import annotations


class TradewindError(Exception):
    """Base of all. The message says what happened and what to do."""

    def __reduce__(self) -> tuple[object, ...]:
        # Task runners carry exceptions between processes; the default would call __init__ with the message alone.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[TradewindError], args: tuple[object, ...], state: dict[str, object]) -> TradewindError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# --- retry -----------------------------------------------------------------------------------------------------------


class RetryError(TradewindError):
    """The same call may succeed later."""


class ExchangeUnreachable(RetryError):
    """The exchange gave no answer, or a 5xx, to a call that changes nothing."""


class ExchangeMaintenance(RetryError):
    """The exchange, or this symbol, is halted for now."""


class RateLimited(RetryError):
    """The exchange answered 429 or 418.

    Parameters
    ----------
    message : what was refused.
    retry_after_s : seconds until the exchange listens again; its own Retry-After where it gave one.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClockSkewed(RetryError):
    """The exchange refused our timestamp; the offset must be measured again."""


class StoreUnavailable(RetryError):
    """PostgreSQL refused or dropped the connection."""


class LockNotAcquired(RetryError):
    """Another process holds the advisory lock."""


class NotFlatYet(RetryError):
    """A flatten has something left to sell or to cancel; it goes on until nothing is."""


class ProtectionPending(RetryError):
    """A stop or an exit could not be placed now: what rested is left, and every look tries again."""


class MissingData(RetryError):
    """Bars, features or news that should come but are not here yet."""


class NewsUnavailable(RetryError):
    """A feed or the scorer did not answer."""


class NewsBudgetSpent(NewsUnavailable):
    """The paid scorer has used its day's budget; it goes on after midnight UTC."""


class ServiceNotReady(RetryError):
    """A process of the stack did not become healthy in time."""


# --- stop ------------------------------------------------------------------------------------------------------------


class StopError(TradewindError):
    """Repeating changes nothing: a person, or other input, is needed."""


class BadSetting(StopError):
    """A setting is missing or wrong.

    Parameters
    ----------
    setting : the environment variable's name.
    problem : what is wrong with it, without its value where that is a secret.
    example : an assignment that would be accepted.
    """

    def __init__(self, setting: str, problem: str, example: str) -> None:
        super().__init__(f"{setting}: {problem}. Example: {example}")
        self.setting = setting
        self.problem = problem
        self.example = example


class IdentityMismatch(StopError):
    """This database belongs to another deployment (mode, exchange, market, seed or account)."""


class MigrationError(StopError):
    """The schema is newer than the code, or an applied migration was edited."""


class BadCandle(StopError):
    """A bar that cannot be true.

    Parameters
    ----------
    message : what is wrong with it.
    row : its position in the batch or file, counted from 0; None where there is none.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message if row is None else f"row {row}: {message}")
        self.row = row


class BadInput(StopError):
    """Any other argument or file that cannot be used."""


class UnknownSymbol(StopError):
    """The exchange does not list this symbol."""


class NotSupported(StopError):
    """The exchange or market type cannot do what was asked."""


class AuthenticationFailed(StopError):
    """The API key is wrong, expired, or lacks the permission."""


class OrderRejected(StopError):
    """The exchange refused the order, which therefore does not exist.

    Parameters
    ----------
    message : the exchange's words.
    code : its error code, such as -2010; None where it gave none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message if code is None else f"{message} (code {code})")
        self.code = code


class InsufficientBalance(OrderRejected):
    """The account cannot pay for the order."""


class TradingHalted(StopError):
    """The latch is set: only the reduction of risk is allowed until `./tradewind resume`."""


class ModelUnavailable(StopError):
    """No champion, or an artefact that does not match its manifest."""


class PortTaken(StopError):
    """Another program listens where we would; the message names the setting that moves us."""


class AlreadyRunning(StopError):
    """Another supervisor or command holds the home directory."""


class StackFailed(StopError):
    """A process of the stack cannot run; the message names its log."""


# --- reconcile -------------------------------------------------------------------------------------------------------


class ReconcileError(TradewindError):
    """Nobody knows what happened: look it up before doing anything else."""


class OutcomeUnknown(ReconcileError):
    """An order was sent and no answer came.

    Parameters
    ----------
    message : what was sent and how it ended.
    client_order_id : by which the exchange can be asked.
    """

    def __init__(self, message: str, client_order_id: str) -> None:
        super().__init__(f"{message} (client order id {client_order_id})")
        self.client_order_id = client_order_id


class LedgerMismatch(ReconcileError):
    """The exchange and our ledger disagree."""
