"""Pure decisions, without I/O, clock or chance: callers pass all three as arguments."""
