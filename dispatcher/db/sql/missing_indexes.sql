-- Statements for indexes that full partitions lack.
SELECT * FROM dispatcher.missing_indexes()
