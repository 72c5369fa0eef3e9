"""What is decided, without I/O, clock or chance: all three come in as arguments."""
