"""Writes what an answer means for its app as a whole: pauses, a slower pace, the end of a pause."""

from dispatcher.core.closing import Closing
from dispatcher.core.outcome import Done, PutBack, Uncertain
from dispatcher.core.pause import may_be_the_hosts
from dispatcher.db.pool import Connection
from dispatcher.db.statements import sql


async def tell_app(connection: Connection, worker: int, closing: Closing) -> dict[str, str]:
    """Write what the answer means for the app as a whole.

    What may be the trouble of this host alone (no way to the provider, a wrong clock) is no reason
    to stop the others while they send. It is returned if there are others: app, and why.
    """
    app = closing.batch.app
    match closing.verdict:
        case PutBack(pause=pause):
            there = reaching = False
            if may_be_the_hosts(pause.code):
                row = await connection.fetchrow(sql("who_reaches"), app, worker)
                there, reaching = (row["there"], row["reaching"]) if row else (False, False)
            if not reaching:
                await connection.execute(
                    sql("pause_app"), app, pause.code, pause.reason, pause.probe_in, pause.probe_max
                )
            return {app: pause.reason} if there else {}
        case Done(slow_down=slow_down, country=country):
            if country is not None:
                await connection.execute(
                    sql("pause_country"), app, country.country, country.until_in, country.code
                )
            if slow_down:
                await connection.execute(sql("slow_down"), app)
            if closing.batch.probe:
                await connection.execute(sql("resume_app"), app)
        case Uncertain():
            pass
    return {}
