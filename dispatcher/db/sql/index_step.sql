-- Make one index that a full partition lacks; returns its name, null for nothing.
SELECT dispatcher.index_step()
