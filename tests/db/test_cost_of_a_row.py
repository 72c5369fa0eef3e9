"""What no result shows, and every row pays for."""

IDS = 500  # of a full request


async def test_no_constraint_of_a_message_counts_within_a_pattern(db):
    counting = await db.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'dispatcher.message'::regclass"
        r" AND contype = 'c' AND pg_get_constraintdef(oid) ~ '~ .*\{[0-9]'"
    )
    assert [row["conname"] for row in counting] == []


async def test_the_ids_of_a_batch_are_kept_as_they_are(db, rows):
    batch = await rows.batch(list(range(1, IDS + 1)))
    kept = await db.fetchval(
        "SELECT pg_column_size(message_ids) FROM dispatcher.batch WHERE id = $1", batch
    )
    assert kept > 8 * IDS
