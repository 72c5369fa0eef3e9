"""A message out: claim, send, record.

`claim_loop` claims for free request slots, `sender` carries one batch through its request,
`recorder` writes the results. `recovery` settles what dead workers left open, and `maintenance`
keeps partitions and retention.
"""
