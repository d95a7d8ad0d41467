"""Tells people of a failed task: Slack, e-mail or a webhook, chosen by configuration alone.

`OFFLOAD_NOTIFY` (or the file `offload_notify` among the secrets) names Airflow connections, comma-separated; the type
of each says how it is told: `slackwebhook`, `smtp`, `http`. Without it nothing is sent. Runs as Airflow's failure
callback, after the last try of a task; Alertmanager tells of what lasts, this of what just happened.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from airflow.sdk import BaseHook, BaseNotifier, Connection, Context
from airflow.sdk.log import mask_secret

from include.offload.errors import OffloadError
from include.offload.redact import without_logins
from include.offload.runbooks import link, path_of
from include.offload.settings import Settings, load
from include.offload.spec.model import TableSpec
from include.orchestration.failures import refusal_of

TIMEOUT_S = 10.0
TRIES = 2
"""Only for a connection that did not come about: a request that was sent may have been heard."""
PAUSE_S = 0.5
SLACK = "hooks.slack.com/services"
UNKNOWN_NEXT = "open the task's log"
LONGEST_CAUSE = 1500

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed task as it is told. window: what the run was to move; id: `OFL-…`, None for any other error."""

    table: str
    dag: str
    run: str
    task: str
    tries: int
    window: str
    plan: str | None
    id: str | None
    what: str
    cause: str
    next: str
    runbook: str
    log: str | None

    @property
    def title(self) -> str:
        return f"{self.table}: {self.task} failed{f', {self.id}' if self.id else ''} {self.what}"

    def rows(self) -> list[tuple[str, str]]:
        """What stands below the title, label and text."""
        told = [
            ("window", self.window),
            ("cause", self.cause),
            ("next", self.next),
            ("runbook", self.runbook),
            ("plan", self.plan),
            ("run", f"{self.dag} {self.run}, try {self.tries}"),
            ("log", self.log),
        ]
        return [(label, text) for label, text in told if text]


def describe(spec: TableSpec, context: Context, settings: Settings) -> Failure:
    """What failed, from the context of Airflow's failure callback. Asks the run's plan from Airflow if there is one."""
    ti, error = context["ti"], context.get("exception")
    refusal = refusal_of(error)
    plan = _plan(context)
    id, what, cause, step = _reason(refusal, error)
    return Failure(
        table=spec.identity,
        dag=str(ti.dag_id),
        run=str(ti.run_id),
        task=str(ti.task_id),
        tries=int(ti.try_number),
        window=_window(context, plan),
        plan=str(plan["plan_id"]) if plan else None,
        id=id,
        what=what,
        cause=without_logins(cause)[:LONGEST_CAUSE],
        next=step,
        runbook=link(path_of(id), settings.runbooks_url),
        log=getattr(ti, "log_url", None),
    )


def _reason(refusal: OffloadError | None, error: object) -> tuple[str | None, str, str, str]:
    """Id, what, cause, next. An error without id is named by its type: its text may hold anything."""
    if refusal is not None:
        return refusal.id, refusal.kind.title, refusal.cause, refusal.next_step
    if error is None:
        return None, "stopped from outside", "the task was killed, or its worker died", UNKNOWN_NEXT
    name = type(error).__name__ if isinstance(error, BaseException) else "error"
    return None, name, f"{name}: its text is in the task's log", UNKNOWN_NEXT


def _plan(context: Context) -> dict[str, Any] | None:
    """What `check_extent` handed on; None when it did not get that far, or Airflow can not be asked."""
    from include.orchestration.tasks import CHECK, PLAN_KEY

    try:
        found = context["ti"].xcom_pull(task_ids=CHECK, key=PLAN_KEY)
    except Exception:  # noqa: BLE001 - the message goes out without it
        log.warning("the plan of the failed run could not be asked", exc_info=True)
        return None
    return found if isinstance(found, dict) else None


def _window(context: Context, plan: dict[str, Any] | None) -> str:
    if plan and plan.get("from"):
        return f"{plan['from']} to {plan['to']}, {plan['windows']} windows, {plan['rows']} rows"
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None:
        return "none planned yet"
    return f"none planned yet; the run's interval is {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"


class FailureNotifier(BaseNotifier):
    """Airflow's failure callback of every task of a table's DAG."""

    # nothing is a template: an error's text may hold braces
    template_fields = ()

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        self._spec = spec

    def notify(self, context: Context) -> None:
        """Tell every channel; one that fails does not keep the others from being told. Raises RuntimeError for it."""
        settings = load()
        channels = settings.channels()
        if not channels:
            return
        failure = describe(self._spec, context, settings)
        failed = []
        for conn_id in channels:
            try:
                tell(BaseHook.get_connection(conn_id), failure)
            except Exception as error:  # noqa: BLE001 - counted, and raised below
                # the library's text may hold the address, which is a secret for webhooks
                failed.append(f"{conn_id} ({error if isinstance(error, Refused) else type(error).__name__})")
            else:
                log.info("told %s of the failure", conn_id)
        if failed:
            raise RuntimeError(f"not told of the failure: {', '.join(failed)}")


class Refused(Exception):  # noqa: N818 - reads as a verdict in the message
    """A channel that did not take the message; the text holds no address."""


def tell(conn: Connection, failure: Failure) -> None:
    """Send one message through one connection. Raises Refused, or the library's own error."""
    send = SENDERS.get(conn.conn_type or "")
    if send is None:
        raise Refused(f"type {conn.conn_type!r} is none of {', '.join(SENDERS)}")
    send(conn, failure)


def _slack(conn: Connection, failure: Failure) -> None:
    """An incoming webhook, with the fields of Slack's own provider: the token is the password."""
    base = _base(conn) if conn.host and ("://" in conn.host or conn.schema) else f"https://{conn.host or SLACK}"
    lines = [f"*{_slack_text(failure.title)}*", *(f"*{k}*  {_slack_text(v)}" for k, v in failure.rows())]
    _post(f"{base}/{conn.password.lstrip('/')}" if conn.password else base, {"text": "\n".join(lines)}, {})


def _slack_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _webhook(conn: Connection, failure: Failure) -> None:
    """A JSON object of all fields. Extra `path` and `headers`; a password without login is a bearer token."""
    extra = dict(conn.extra_dejson)
    headers = {str(k): str(v) for k, v in dict(extra.get("headers") or {}).items()}
    if conn.password and not conn.login:
        headers.setdefault("Authorization", f"Bearer {conn.password}")
    path = str(extra.get("path") or "").lstrip("/")
    base = _base(conn)
    login = (conn.login, conn.password or "") if conn.login else None
    _post(f"{base}/{path}" if path else base, {"title": failure.title, **asdict(failure)}, headers, login)


def _base(conn: Connection) -> str:
    """`scheme://host:port` of a connection whose host may be a whole URL; as in Airflow, the type is a scheme too.

    Raises Refused without a host.
    """
    host = conn.host
    if not host:
        raise Refused("the connection names no host")
    url = host if "://" in host else f"{conn.schema or conn.conn_type}://{host}"
    return (f"{url.rstrip('/')}:{conn.port}" if conn.port else url).rstrip("/")


def _post(url: str, document: object, headers: dict[str, str], login: tuple[str, str] | None = None) -> None:
    import httpx
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    # whoever knows a webhook's address may use it; httpx logs it with every request
    mask_secret(url)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    again = Retrying(
        retry=retry_if_exception_type((httpx.ConnectError, httpx.ConnectTimeout)),
        stop=stop_after_attempt(TRIES), wait=wait_fixed(PAUSE_S), reraise=True,
    )  # fmt: skip
    # no transport of its own: with one, httpx does not heed HTTPS_PROXY and its like
    with httpx.Client(timeout=TIMEOUT_S, auth=login) as client:
        answer = again(client.post, url, json=document, headers=headers)
    if answer.status_code >= 300:
        raise Refused(f"answered {answer.status_code}")


def _mail(conn: Connection, failure: Failure) -> None:
    """An e-mail through Airflow's SMTP provider; the extra names `to` and `from_email`."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    to = conn.extra_dejson.get("to")
    if not to:
        raise Refused("its extra names nobody in `to`")
    cells = "".join(f"<tr><th align=left valign=top>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in failure.rows())
    with SmtpHook(smtp_conn_id=conn.conn_id) as hook:
        hook.send_email_smtp(
            to=_addresses(to),
            subject=failure.title,
            html_content=f"<p>{html.escape(failure.title)}</p><table>{cells}</table>",
        )


def _addresses(to: str | Iterable[str]) -> list[str]:
    return [a.strip() for a in (to.split(",") if isinstance(to, str) else to)]


SENDERS: dict[str, Callable[[Connection, Failure], None]] = {
    "slackwebhook": _slack,
    "smtp": _mail,
    "email": _mail,
    "http": _webhook,
    "https": _webhook,
}
